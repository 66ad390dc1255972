"""LangChain's completion classes, one for each kind of backend."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.build import Mode, hybrid_backend
from uq_llm_integrations.backends.huggingface.backend import HuggingFaceBackend
from uq_llm_integrations.backends.vllm.engine import VLLMEngineBackend
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.langchain.completion import UncertaintyLLM


class VLLMUncertaintyLLM(UncertaintyLLM):
    """A completion model on vLLM.

    Arguments beside those of all completion models go to the engine (`gpu_memory_utilization=0.5`,
    `tensor_parallel_size=2`, ...). It starts on first use and is shared by all objects with the
    same engine arguments.
    """

    engine: Any = Field(default=None, exclude=True, repr=False)
    """A running `AsyncLLM`, in place of `model`."""
    deadline: float = 120.0
    """Seconds after which an engine that gives no sign of life counts as dead."""

    generator_type: ClassVar[str] = "vllm"

    def _new_backend(self) -> Backend:
        return VLLMEngineBackend(
            self.model,
            engine=self.engine,
            max_n=self.max_n,
            deadline=self.deadline,
            **self.engine_args,
        )


class HuggingFaceUncertaintyLLM(UncertaintyLLM):
    """A completion model on Hugging Face transformers.

    Arguments beside those of all completion models go to `HuggingFaceBackend`, and from there to
    `from_pretrained`.
    """

    generator_type: ClassVar[str] = "huggingface"

    def _new_backend(self) -> Backend:
        if self.model is None:
            raise ConfigurationError("give a `model` or a `backend`")
        return HuggingFaceBackend(self.model, max_n=self.max_n, **self.engine_args)


class HybridUncertaintyLLM(UncertaintyLLM):
    """A completion model that generates on vLLM and looks inside the model to score.

    `mode` says where the inside is looked at: `shared`, on the engine's own weights; `resident`, in
    a second copy of the model; `sequential`, in a copy that is loaded while the engine sleeps.
    """

    mode: Mode = "shared"
    vllm: dict[str, Any] = Field(default_factory=dict)
    """Arguments of vLLM's engine."""
    huggingface: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the `HuggingFaceBackend` that scores; none where the mode is `shared`."""

    generator_type: ClassVar[str] = "hybrid"

    def _new_backend(self) -> Backend:
        if self.model is None:
            raise ConfigurationError("give a `model` or a `backend`")
        engine = self.vllm | self.engine_args
        return hybrid_backend(self.model, self.mode, engine, self.huggingface, max_n=self.max_n)
