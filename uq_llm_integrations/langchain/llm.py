"""LangChain's completion class on the embedded engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, NamedTuple, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field, ValidationError, model_validator

from uq_llm_integrations.backends.base import MAX_N, Backend
from uq_llm_integrations.backends.sampling import (
    MANAGED_PARAMETERS,
    SAMPLING_PARAMETERS,
    check_n,
    check_sampling,
    check_top_logprobs,
)
from uq_llm_integrations.backends.vllm_engine import VLLMEngineBackend
from uq_llm_integrations.decoding.abstain import ABSTENTION, Abstain, Action
from uq_llm_integrations.decoding.conditions import Condition
from uq_llm_integrations.decoding.drive import adrive_all
from uq_llm_integrations.decoding.strategies import Single
from uq_llm_integrations.decoding.stream import astream
from uq_llm_integrations.decoding.wishes import Strategy
from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidRequestError,
    UncertaintyError,
)
from uq_llm_integrations.langchain.translate import (
    TokenTexts,
    generation_chunk,
    llm_result,
)
from uq_llm_integrations.records import EarlyStop, Request, Result
from uq_llm_integrations.scoring.methods import DEFAULT_METHODS, check_methods


class ScoredText(NamedTuple):
    """A text and what `generation_info["uncertainty"]` says of it."""

    text: str
    uncertainty: dict[str, Any]


class VLLMUncertaintyLLM(BaseLLM):
    """A completion model on vLLM whose every answer tells how sure the model was.

    The scores are in `generation_info["uncertainty"]` of each generation, and in the callbacks.
    Sampling parameters of vLLM can be given here and at each call; any other argument goes to the
    engine (`gpu_memory_utilization=0.5`, `tensor_parallel_size=2`, ...). The engine starts on first
    use and is shared by all objects with the same engine arguments.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | None = None
    """A bundled model ("smollm2"), a folder or a hub name."""
    engine: Any = Field(default=None, exclude=True, repr=False)
    """A running `AsyncLLM`, in place of `model`."""
    backend: Backend | None = Field(default=None, exclude=True, repr=False)
    """Any other backend, in place of `model`."""
    methods: tuple[str, ...] = DEFAULT_METHODS
    """Uncertainty methods to score by, by lm-polygraph's names or their aliases."""
    token_scores: bool = False
    """Whether to tell the log-probability, rank and entropy of every token."""
    chat_template: bool = False
    """Whether to put each prompt into the model's chat template as a user's turn."""
    n: int = 1
    top_logprobs: int = 0
    temperature: float | None = None
    max_tokens: int | None = 256
    stop: list[str] | None = None
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Further sampling parameters by vLLM's names; they can also be given as arguments."""
    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Engine arguments by vLLM's names; they can also be given as arguments."""
    early_stop: EarlyStop | None = None
    """Ends a sample inside the engine once it is too uncertain."""
    strategy: Strategy = Single()
    """What to draw and which candidate to answer with."""
    uncertain_when: Condition | None = None
    """The condition on which an answer counts as too uncertain."""
    on_high_uncertainty: Action = "annotate"
    """What to do then: say so, answer with `abstention_text`, or raise HighUncertaintyError."""
    abstention_text: str = ABSTENTION
    max_n: int = MAX_N
    deadline: float = 120.0

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValidationError as error:
            # Pydantic wraps what its validators raise; callers are promised our own errors.
            causes = (details.get("ctx", {}).get("error") for details in error.errors())
            ours = next((cause for cause in causes if isinstance(cause, UncertaintyError)), None)
            if ours is None:
                raise
            raise ours from None

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any]) -> Self:
        """Return the model that a YAML file or a dict describes (`uq_llm_integrations.config`)."""
        from uq_llm_integrations.config import Configuration

        return cls(**Configuration.read(source).llm_arguments())

    @model_validator(mode="before")
    @classmethod
    def _sort_arguments(cls, values: dict[str, Any]) -> dict[str, Any]:
        values = dict(values)
        sampling, engine_args = dict(values.get("sampling") or {}), values.get("engine_args") or {}
        engine_args = dict(engine_args)
        for name in [name for name in values if name not in cls.model_fields]:
            if name in MANAGED_PARAMETERS:
                raise ConfigurationError(f"{name} is set by the backend and cannot be passed")
            (sampling if name in SAMPLING_PARAMETERS else engine_args)[name] = values.pop(name)
        if isinstance(values.get("stop"), str):
            values["stop"] = [values["stop"]]
        return values | {"sampling": sampling, "engine_args": engine_args}

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_methods(self.methods)
        check_n(self.n, self.max_n)
        check_sampling(self._sampling(None))
        if self.backend is None:
            self.backend = VLLMEngineBackend(
                self.model,
                engine=self.engine,
                max_n=self.max_n,
                deadline=self.deadline,
                **self.engine_args,
            )
        elif self.model or self.engine or self.engine_args:
            raise ConfigurationError("a ready backend takes no model, engine or engine arguments")
        check_top_logprobs(self.top_logprobs, self._backend.capabilities.max_top_logprobs)
        if self.on_high_uncertainty != "annotate" and self.uncertain_when is None:
            raise ConfigurationError(
                f"on_high_uncertainty={self.on_high_uncertainty!r} needs `uncertain_when`, "
                "the condition on which an answer is too uncertain"
            )
        self._deciding.check(self._asked((0,), None), self._backend.capabilities)
        return self

    @property
    def _backend(self) -> Backend:
        assert self.backend is not None
        return self.backend

    @property
    def _deciding(self) -> Strategy:
        if self.uncertain_when is None:
            return self.strategy
        return Abstain(
            self.strategy, self.uncertain_when, self.on_high_uncertainty, self.abstention_text
        )

    @property
    def _llm_type(self) -> str:
        return "vllm-uncertainty"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that an answer depends on: caches use it as their key."""
        return {
            "model": self._backend.capabilities.model,
            "engine_args": self.engine_args,
            "methods": list(self.methods),
            "token_scores": self.token_scores,
            "chat_template": self.chat_template,
            "n": self.n,
            "top_logprobs": self.top_logprobs,
            "early_stop": repr(self.early_stop),
            "strategy": repr(self._deciding),
            **self._sampling(None),
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "vllm"
        params["ls_model_name"] = self._backend.capabilities.model
        return params

    def invoke_with_scores(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ScoredText:
        """Return the text and its uncertainty from one call; `invoke` returns the text alone."""
        result = self.generate_prompt([self._convert_input(input)], **_of(config), **kwargs)
        return _scored_text(result)

    async def ainvoke_with_scores(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> ScoredText:
        """Return the text and its uncertainty from one call."""
        prompts = [self._convert_input(input)]
        return _scored_text(await self.agenerate_prompt(prompts, **_of(config), **kwargs))

    def generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        """Generate with the call's own parameters bound first, so that caches key on them too."""
        bound, rest = self._bound(kwargs)
        return super(VLLMUncertaintyLLM, bound).generate(prompts, *args, **rest)

    async def agenerate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        """Generate with the call's own parameters bound first, so that caches key on them too."""
        bound, rest = self._bound(kwargs)
        return await super(VLLMUncertaintyLLM, bound).agenerate(prompts, *args, **rest)

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return self._backend.run(self._answers(prompts, stop, kwargs))

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return await self._answers(prompts, stop, kwargs)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with closing(self._backend.iterate(self._chunks(prompt, stop, kwargs))) as chunks:
            for chunk in chunks:
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        async with aclosing(self._chunks(prompt, stop, kwargs)) as chunks:
            async for chunk in chunks:
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _answers(
        self, prompts: Sequence[str], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> LLMResult:
        _refuse(kwargs)
        requests = [await self._request(prompt, stop) for prompt in prompts]
        results = await adrive_all(self._deciding, requests, self._backend, self.methods)
        texts = [await self._token_texts(result) for result in results]
        return llm_result(results, texts, self._backend.capabilities.model)

    async def _chunks(
        self, prompt: str, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> AsyncGenerator[GenerationChunk, None]:
        bound, rest = self._bound(kwargs)
        _refuse(rest)
        request = await bound._request(prompt, stop)
        answer = astream(bound._deciding, request, self._backend, bound.methods)
        async with aclosing(answer) as pieces:
            async for text, result in pieces:
                texts = None if result is None else await bound._token_texts(result)
                yield generation_chunk(text, result, texts)

    async def _request(self, prompt: str, stop: list[str] | None) -> Request:
        ids = await self._backend.encode(prompt, chat=self.chat_template)
        return self._asked(ids, stop, prompt)

    def _asked(
        self, ids: tuple[int, ...], stop: list[str] | None, text: str | None = None
    ) -> Request:
        return Request(
            ids,
            self.n,
            self.top_logprobs,
            self._sampling(stop),
            self.early_stop,
            text=text,
            chat=self.chat_template,
        )

    async def _token_texts(self, result: Result) -> TokenTexts:
        if not self.token_scores:
            return None
        return [await self._backend.token_texts(one.token_ids) for one in result.candidates]

    def _sampling(self, stop: list[str] | None) -> dict[str, Any]:
        stops = [*(self.stop or []), *(stop or [])]
        own = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "stop": list(dict.fromkeys(stops)) or None,
        }
        return self.sampling | {name: value for name, value in own.items() if value is not None}

    def _bound(self, kwargs: dict[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Return the model with a call's parameters as its own, and the arguments left over."""
        sampling = {name: kwargs[name] for name in kwargs if name in _CALL_SAMPLING}
        fields = {name: kwargs[name] for name in kwargs if name in _CALL_FIELDS}
        rest = {n: v for n, v in kwargs.items() if n not in sampling and n not in fields}
        if not sampling and not fields:
            return self, rest
        bound = self.model_copy(update=fields | {"sampling": self.sampling | sampling})
        check_methods(bound.methods)
        return bound, rest


_CALL_FIELDS = frozenset(
    {"n", "top_logprobs", "methods", "token_scores", "chat_template", "temperature", "max_tokens"}
)
_CALL_SAMPLING = SAMPLING_PARAMETERS - _CALL_FIELDS - {"stop"}


def _of(config: RunnableConfig | None) -> dict[str, Any]:
    names = ("callbacks", "tags", "metadata", "run_name", "run_id")
    return {name: (config or {}).get(name) for name in names}


def _scored_text(result: LLMResult) -> ScoredText:
    generation = result.generations[0][0]
    return ScoredText(generation.text, (generation.generation_info or {})["uncertainty"])


def _refuse(kwargs: dict[str, Any]) -> None:
    if kwargs:
        allowed = ", ".join(sorted(_CALL_FIELDS | _CALL_SAMPLING | {"stop"}))
        raise InvalidRequestError(f"unknown arguments {sorted(kwargs)}; allowed are {allowed}")
