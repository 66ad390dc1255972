"""The plugin of `vllm serve` that returns exact statistics with every answer."""
