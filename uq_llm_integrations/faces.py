"""The backend that a class makes for itself, one mixin for each kind."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.huggingface.backend import HuggingFaceBackend
from uq_llm_integrations.backends.hybrid import Mode, hybrid_backend
from uq_llm_integrations.backends.vllm.backend import VLLMEngineBackend
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.settings import UncertaintySettings


class OnVLLM(UncertaintySettings):
    """Runs on vLLM. The engine starts on first use; objects with the same arguments share it."""

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


class OnHuggingFace(UncertaintySettings):
    """Runs on transformers; further arguments go to `from_pretrained`."""

    generator_type: ClassVar[str] = "huggingface"

    def _new_backend(self) -> Backend:
        return HuggingFaceBackend(_named(self.model), max_n=self.max_n, **self.engine_args)


class OnBoth(UncertaintySettings):
    """Generates on vLLM and looks inside the model to score.

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
        engine = self.vllm | self.engine_args
        return hybrid_backend(
            _named(self.model), self.mode, engine, self.huggingface, max_n=self.max_n
        )


def _named(model: str | None) -> str:
    if model is None:
        raise ConfigurationError("give a `model` or a `backend`")
    return model
