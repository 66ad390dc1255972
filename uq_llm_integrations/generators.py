"""Samples of a prompt with the scores of any methods, from one call and without a framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypedDict

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.hybrid import Mode, hybrid_backend
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import DEFAULT_METHODS
from uq_llm_integrations.records import Request, Result
from uq_llm_integrations.report.metadata import uncertainty_metadata
from uq_llm_integrations.strategies.best_of_n import Single
from uq_llm_integrations.strategies.drive import adrive


class Sample(TypedDict):
    """A text and what is known of its uncertainty."""

    text: str
    uncertainty: dict[str, Any]


class HybridUncertaintyGenerator:
    """Generates on vLLM and scores by any method, also those that look inside the model.

    `mode` is that of `hybrid_backend`; a ready `backend` may be given in place of a model. Further
    arguments are vLLM's sampling parameters.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        backend: Backend | None = None,
        mode: Mode = "shared",
        vllm: Mapping[str, Any] | None = None,
        huggingface: Mapping[str, Any] | None = None,
        method_options: MethodOptions | None = None,
        chat: bool = False,
        **sampling: Any,
    ) -> None:
        if (model is None) == (backend is None):
            raise ConfigurationError("give either a `model` or a `backend`")
        self.backend = backend or hybrid_backend(str(model), mode, vllm, huggingface)
        self._assessment, self._chat = method_options, chat
        self._sampling = {"temperature": 0.7, "max_tokens": 256} | sampling

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any]) -> Self:
        """Return the generator that a YAML file or a dict describes."""
        from uq_llm_integrations.configuration import Configuration

        read = Configuration.read(source)
        backend, chat = read.generator.backend(), read.chat_template
        return cls(
            backend=backend, method_options=read.build_method_options(), chat=chat, **read.sampling
        )

    def generate_with_uncertainty(
        self,
        prompt: str,
        n_samples: int = 4,
        uncertainty_methods: Sequence[str] = DEFAULT_METHODS,
    ) -> list[Sample]:
        """Return the samples in the order in which they were drawn, blocking."""
        return self.backend.run(
            self.agenerate_with_uncertainty(prompt, n_samples, uncertainty_methods)
        )

    async def agenerate_with_uncertainty(
        self,
        prompt: str,
        n_samples: int = 4,
        uncertainty_methods: Sequence[str] = DEFAULT_METHODS,
    ) -> list[Sample]:
        """Return the samples in the order in which they were drawn."""
        result = await self._result(prompt, n_samples, uncertainty_methods)
        return [
            {"text": one.text, "uncertainty": uncertainty_metadata(result, place)}
            for place, one in enumerate(result.candidates)
        ]

    async def _result(self, prompt: str, n: int, methods: Sequence[str]) -> Result:
        ids = await self.backend.encode(prompt, chat=self._chat)
        request = Request(
            ids,
            n,
            sampling=self._sampling,
            text=prompt,
            chat=self._chat,
            method_options=self._assessment,
        )
        return await adrive(Single(), request, self.backend, methods)
