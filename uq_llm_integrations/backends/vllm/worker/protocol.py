"""What the client and the engine's workers agree on: keys, names of methods and of classes.

It imports neither torch nor vLLM, so that both sides can read it.
"""

REQUEST_KEY = "uq_request"
"""The key in `SamplingParams.extra_args` that asks the probe to observe a request."""

SCORE_KEY = "uq_score"
"""The key that asks for the prompt's own statistics: (request, index of the first token)."""

STOP_KEY = "uq_stop"
"""The key that has an early stop: (statistic, window, threshold, token to be forced)."""

TOKENS_KEY = "uq_tokens"
"""The key that asks what the next distribution gives to tokens: (name to keep it under, ids)."""

ATTACH, TAKE, PEEK, RECORDED = "uq_attach", "uq_take", "uq_peek", "uq_recorded"
SHARE, INSPECT = "uq_share", "uq_inspect"
"""The worker extension's methods."""

CHILD_MODULE = "uq_llm_integrations.backends.vllm.worker.child"
"""What the engine's processes run in place of the caller's main module."""

_EXTENSION = "uq_llm_integrations.backends.vllm.worker.extension"

WORKER_EXTENSION = f"{_EXTENSION}.ProbeExtension"


def probe_name(*, use_v2_model_runner: bool) -> str:
    """Return the name by which an engine loads the probe for its model runner."""
    return f"{_EXTENSION}:{'V2Probe' if use_v2_model_runner else 'V1Probe'}"
