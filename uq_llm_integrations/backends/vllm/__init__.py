"""The embedded vLLM engine, and what runs inside its worker."""
