"""The configuration file's section on where tokens come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.huggingface.backend import HuggingFaceBackend
from uq_llm_integrations.backends.hybrid import Mode, hybrid_backend
from uq_llm_integrations.backends.vllm.backend import VLLMEngineBackend


class _Generator(BaseModel):
    """Every further option is an argument of the engine or of the Hugging Face backend."""

    model_config = ConfigDict(extra="allow")

    model: str

    @property
    def options(self) -> dict[str, Any]:
        """What is said beyond the section's own fields."""
        return dict(self.model_extra or {})

    def llm_arguments(self) -> dict[str, Any]:
        """Return the arguments of the frameworks' classes."""
        return {"model": self.model, "engine_args": self.options}


class VLLMGenerator(_Generator):
    """vLLM's engine."""

    type: Literal["vllm"]

    def backend(self) -> Backend:
        """Return the backend; nothing is loaded yet."""
        return VLLMEngineBackend(self.model, **self.options)


class HuggingFaceGenerator(_Generator):
    """Hugging Face transformers."""

    type: Literal["huggingface"]

    def backend(self) -> Backend:
        """Return the backend; nothing is loaded yet."""
        return HuggingFaceBackend(self.model, **self.options)


class HybridGenerator(BaseModel):
    """vLLM generates, the inside of the model is looked at as `mode` says."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["hybrid"]
    model: str
    mode: Mode | None = None
    """Where nothing is said: `resident` with a `huggingface` section, else `shared`."""
    vllm: dict[str, Any] = Field(default_factory=dict)
    huggingface: dict[str, Any] = Field(default_factory=dict)

    def backend(self) -> Backend:
        """Return the backend; nothing is loaded yet."""
        return hybrid_backend(self.model, self._mode, self.vllm, self.huggingface)

    def llm_arguments(self) -> dict[str, Any]:
        """Return the arguments of the frameworks' classes."""
        own = {"vllm": self.vllm, "huggingface": self.huggingface}
        return {"model": self.model, "mode": self._mode, **own}

    @property
    def _mode(self) -> Mode:
        return self.mode or ("resident" if self.huggingface else "shared")


def _with_type(value: Any) -> Any:
    return {"type": "vllm", **value} if isinstance(value, Mapping) else value


GeneratorSection = Annotated[
    Annotated[VLLMGenerator | HuggingFaceGenerator | HybridGenerator, Field(discriminator="type")],
    BeforeValidator(_with_type),
]
