"""What the classes of all frameworks are set up with: model, sampling, scores, decisions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError, model_validator

from uq_llm_integrations.backends.base import MAX_N, Backend
from uq_llm_integrations.backends.sampling_params import (
    MANAGED_PARAMETERS,
    SAMPLING_PARAMETERS,
    check_n,
    check_sampling,
    check_top_logprobs,
)
from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidRequestError,
    UncertaintyError,
)
from uq_llm_integrations.methods.availability import check_available
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import DEFAULT_METHODS
from uq_llm_integrations.records import Conversation, EarlyStop, Request, Result
from uq_llm_integrations.report.metadata import TokenTexts
from uq_llm_integrations.strategies.abstain import ABSTENTION, Abstain, Action
from uq_llm_integrations.strategies.best_of_n import Single
from uq_llm_integrations.strategies.conditions import Condition
from uq_llm_integrations.strategies.streaming import AnswerPiece, astream, check_stream
from uq_llm_integrations.strategies.wishes import Strategy


class UncertaintySettings(BaseModel, ABC):
    """Fields and checks. Any argument that is neither a field nor a sampling parameter is one of
    the backend's.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    generator_type: ClassVar[str]
    """The `generator.type` of the configuration files that describe this class."""
    model: str | None = None
    """A bundled model ("smollm2"), a folder or a hub name."""
    backend: Backend | None = Field(default=None, exclude=True, repr=False)
    """A ready backend, in place of `model`."""
    methods: tuple[str, ...] = DEFAULT_METHODS
    """Uncertainty methods to score by, by lm-polygraph's names or their aliases."""
    method_options: InstanceOf[MethodOptions] | None = None
    """How methods are served that need more than the answer's own log-probabilities."""
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
    stop_if: Condition | None = None
    """Cuts a stream off once it holds of the tokens so far; answers that are not streamed are not
    touched by it."""
    strategy: Strategy = Single()
    """What to draw and which candidate to answer with."""
    uncertain_when: Condition | None = None
    """The condition on which an answer counts as too uncertain."""
    on_high_uncertainty: Action = "annotate"
    """What to do then: say so, answer with `abstention_text`, or raise HighUncertaintyError."""
    abstention_text: str = ABSTENTION
    max_n: int = MAX_N

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

    @abstractmethod
    def _new_backend(self) -> Backend:
        """Return the backend that the arguments describe; nothing is loaded yet."""

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any]) -> Self:
        """Return the model that a YAML file or a dict describes (see `Configuration`)."""
        from uq_llm_integrations.configuration import Configuration

        configuration = Configuration.read(source)
        if configuration.generator.type != cls.generator_type:
            raise ConfigurationError(
                f"generator.type is {configuration.generator.type!r}; {cls.__name__} is for "
                f"{cls.generator_type!r}"
            )
        chat = configuration.chat.given() if configuration.chat else {}
        if unknown := sorted(chat.keys() - cls.model_fields.keys()):
            raise ConfigurationError(f"chat: {', '.join(unknown)} is for chat classes")
        return cls(**configuration.llm_arguments(), **chat)

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
        check_n(self.n, self.max_n)
        check_sampling(self._sampling(None))
        if self.backend is None:
            self.backend = self._new_backend()
        elif self.model or self.engine_args:
            raise ConfigurationError("a ready backend takes no model and no engine arguments")
        check_top_logprobs(self.top_logprobs, self._backend.capabilities.max_top_logprobs)
        if self.on_high_uncertainty != "annotate" and self.uncertain_when is None:
            raise ConfigurationError(
                f"on_high_uncertainty={self.on_high_uncertainty!r} needs `uncertain_when`, "
                "the condition on which an answer is too uncertain"
            )
        request = self._asked((0,), None)
        check_stream(
            self._deciding, request, self._backend.capabilities, self.methods, self.stop_if
        )
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
    def _settings(self) -> dict[str, Any]:
        """Everything that an answer depends on: caches use it as their key."""
        return {
            "model": self._backend.capabilities.model,
            "engine_args": self.engine_args,
            "methods": list(self.methods),
            "method_options": repr(self.method_options),
            "token_scores": self.token_scores,
            "chat_template": self.chat_template,
            "n": self.n,
            "top_logprobs": self.top_logprobs,
            "early_stop": repr(self.early_stop),
            "stop_if": repr(self.stop_if),
            "strategy": repr(self._deciding),
            **self._sampling(None),
        }

    async def _request(self, prompt: str, stop: list[str] | None) -> Request:
        ids = await self._backend.encode(prompt, chat=self.chat_template)
        return self._asked(ids, stop, prompt)

    def _asked(
        self,
        ids: tuple[int, ...],
        stop: list[str] | None,
        text: str | None = None,
        conversation: Conversation | None = None,
    ) -> Request:
        return Request(
            ids,
            self.n,
            self.top_logprobs,
            self._sampling(stop),
            self.early_stop,
            text=text,
            chat=self.chat_template,
            conversation=conversation,
            method_options=self.method_options,
            live=self.token_scores,
        )

    def _answer_pieces(self, request: Request) -> AsyncGenerator[AnswerPiece, None]:
        return astream(self._deciding, request, self._backend, self.methods, self.stop_if)

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
        fields = {name: kwargs[name] for name in kwargs if name in self._call_fields}
        rest = {n: v for n, v in kwargs.items() if n not in sampling and n not in fields}
        if not sampling and not fields:
            return self, rest
        bound = self.model_copy(update=fields | {"sampling": self.sampling | sampling})
        check_available(bound.methods, self._backend.capabilities, self.method_options)
        return bound, rest

    def _refuse_unknown(self, kwargs: dict[str, Any]) -> None:
        """Raise InvalidRequestError for arguments of a call that mean nothing to this class."""
        if kwargs:
            allowed = ", ".join(sorted(self._call_fields | _CALL_SAMPLING | {"stop"}))
            raise InvalidRequestError(f"unknown arguments {sorted(kwargs)}; allowed are {allowed}")

    @property
    def _call_fields(self) -> frozenset[str]:
        return _CALL_FIELDS & type(self).model_fields.keys()


_CALL_FIELDS = frozenset(
    {
        "n",
        "top_logprobs",
        "methods",
        "token_scores",
        "temperature",
        "max_tokens",
        "stop_if",
        "chat_template",
        "chat_template_kwargs",
        "logprobs",
    }
)
_CALL_SAMPLING = SAMPLING_PARAMETERS - _CALL_FIELDS - {"stop"}
