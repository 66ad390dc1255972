"""What a server is refused for at its start, since figures would be wrong or missing."""

from __future__ import annotations

import os
from typing import Any

from uq_llm_integrations.errors import ConfigurationError

RUST_FRONT_END = "VLLM_USE_RUST_FRONTEND"


def check_server(config: Any) -> None:
    """Raise ConfigurationError for a server with this VllmConfig, and say what must be changed."""
    for why in (_why_not_raw(config), _why_sharded(config), why_rust()):
        if why is not None:
            raise ConfigurationError(f"{why}; or start the server without uq_llm in VLLM_PLUGINS")


def _why_not_raw(config: Any) -> str | None:
    mode = config.model_config.logprobs_mode
    if mode == "raw_logprobs":
        return None
    return (
        f"--logprobs-mode is {mode}, and the statistics are those of the model's own distribution: "
        "start the server with --logprobs-mode raw_logprobs"
    )


def _why_sharded(config: Any) -> str | None:
    if not getattr(config.parallel_config, "enable_batch_sharded_sampling", False):
        return None
    return (
        "batch-sharded sampling sends log-probabilities of a fixed width, without the statistics: "
        "start the server without it"
    )


def why_rust() -> str | None:
    """Return why the environment's choice of a front end cannot have the plugin."""
    value = os.environ.get(RUST_FRONT_END, "").strip().lower()
    if value in ("", "0", "false"):
        return None
    return (
        f"{RUST_FRONT_END} is set, and the Rust front end has no plugins: unset it, so that the "
        "Python front end serves"
    )
