"""Which backends a hybrid one is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from uq_llm_integrations.backends.base import MAX_N, Backend
from uq_llm_integrations.backends.huggingface.backend import HuggingFaceBackend
from uq_llm_integrations.backends.hybrid import HybridBackend
from uq_llm_integrations.backends.vllm.backend import VLLMEngineBackend
from uq_llm_integrations.errors import ConfigurationError

Mode = Literal["shared", "resident", "sequential"]


def hybrid_backend(
    model: str,
    mode: Mode = "shared",
    vllm: Mapping[str, Any] | None = None,
    huggingface: Mapping[str, Any] | None = None,
    *,
    max_n: int = MAX_N,
) -> Backend:
    """Return a backend that generates on vLLM and shows the inside of the model.

    `shared` runs the Hugging Face definition on the engine's own weights: one copy in memory.
    `resident` loads a second copy, which `huggingface` may have quantised (`quantization="int8"`).
    `sequential` loads it while the engine sleeps. Nothing is loaded yet.
    """
    engine = dict(vllm or {})
    if mode == "shared":
        if huggingface:
            raise ConfigurationError(
                f"in shared mode Hugging Face loads nothing, so {sorted(huggingface)} do nothing; "
                "use mode 'resident' or 'sequential'"
            )
        return VLLMEngineBackend(model, max_n=max_n, **engine)
    if mode == "sequential":
        engine = {"enable_sleep_mode": _has_sleep_mode(), **engine}
    generator = VLLMEngineBackend(model, max_n=max_n, **engine)
    scorer = HuggingFaceBackend(model, **dict(huggingface or {}))
    return HybridBackend(generator, scorer, sequential=mode == "sequential")


def _has_sleep_mode() -> bool:
    """Return whether vLLM can sleep here; elsewhere its engine ends and starts again."""
    import torch

    return bool(torch.cuda.is_available())
