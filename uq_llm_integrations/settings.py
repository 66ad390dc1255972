"""What a user configures: one set of options, the same at every entrance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from uq_llm_integrations.backends.capabilities import (
    MANAGED_PARAMETERS,
    SAMPLING_PARAMETERS,
    check_early_stop,
    check_sampling,
    check_top_logprobs,
)
from uq_llm_integrations.coercion import Options, validation_text
from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidRequestError,
    UncertaintyError,
    suggestion,
)
from uq_llm_integrations.methods.registry import DEFAULT_METHODS, check_methods
from uq_llm_integrations.records import EarlyStop, JsonObject
from uq_llm_integrations.strategies.abstain import ABSTENTION, Action, Policy
from uq_llm_integrations.strategies.base import Single, Strategy
from uq_llm_integrations.strategies.condition_text import When
from uq_llm_integrations.strategies.retry import RetryErrors

ALL_AFFORDABLE = "all affordable"
"""In place of names: all methods that the backend can serve and that need nothing fitted."""


def _names(value: object) -> object:
    names = (value,) if isinstance(value, str) else value
    if (
        not isinstance(names, Sequence)
        or isinstance(names, bytes)
        or tuple(names) == (ALL_AFFORDABLE,)
    ):
        return names
    return check_methods(names)


def _typed(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


def _strings(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Settings(BaseModel):
    """The options of an `UncertaintyModel`, and of every class and file that makes one.

    Sampling parameters of vLLM that are no fields can be given as arguments, too. Raises
    ConfigurationError for an unknown name, and for a value that can never work.

    Example:
        >>> Settings(methods=["entropy"], uncertain_when="entropy > 2", top_p=0.9).sampling
        {'top_p': 0.9}
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    methods: Annotated[tuple[str, ...], BeforeValidator(_names)] = DEFAULT_METHODS
    """Uncertainty methods to score by, see `METHODS`; "all affordable" for all that need nothing
    fitted."""
    method_options: Options | None = None
    """How methods are served that need more than the answer's own log-probabilities."""
    strategy: Annotated[Strategy, BeforeValidator(_typed)] = Single()
    """What to sample and which candidate to answer with."""
    uncertain_when: When | None = None
    """The condition on which an answer counts as too uncertain."""
    on_high_uncertainty: Action = "annotate"
    """What to do then: note it, answer with `abstention_text`, or raise HighUncertaintyError."""
    abstention_text: str = ABSTENTION
    """What is said in the place of an answer that is too uncertain."""
    token_scores: bool = False
    """Whether the metadata has the log-probability, rank and entropy of every token."""
    early_stop: EarlyStop | None = None
    """Ends a sample inside the engine once it is too uncertain."""
    stop_if: When | None = None
    """Ends a stream once it holds of the tokens so far; answers that are not streamed are not
    touched by it."""
    n: int = 1
    """How many samples there are, where the strategy leaves it open."""
    top_logprobs: int = 0
    """How many alternatives of each token come with their log-probabilities, -1 for all."""
    temperature: float | None = None
    """What the logits are divided by; 0 is greedy, None leaves it to the engine."""
    max_tokens: int | None = 256
    """The most tokens of a sample, None for what the context leaves."""
    stop: Annotated[list[str] | None, BeforeValidator(_strings)] = None
    """Strings that end a sample; they are no part of its text."""
    sampling: JsonObject = Field(default_factory=dict)
    """Further sampling parameters by vLLM's names."""
    chat_template: bool = False
    """Whether a prompt is put into the model's chat template as a user's turn."""
    chat_template_kwargs: JsonObject = Field(default_factory=dict)
    """Further values for the chat template (`enable_thinking=False`, ...)."""
    tool_parser: str | None = None
    """vLLM's name of the format in which the model calls tools; by default the template decides."""
    reasoning_parser: str | None = None
    """vLLM's name of the format in which the model reasons, where it does."""
    logprobs: bool = False
    """Whether to give log-probabilities in the shape of OpenAI's API."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds after which a call, or a stream that waits for its next piece, raises
    EngineTimeoutError. The engine's start does not count."""
    max_retries: int = Field(default=0, ge=0)
    """How often a call that is not streamed is tried again where the engine failed."""

    def __init__(self, **options: object) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            # Pydantic wraps what its validators raise; callers are promised our own errors.
            causes = (one.get("ctx", {}).get("error") for one in error.errors())
            own = next((cause for cause in causes if isinstance(cause, UncertaintyError)), None)
            raise own or ConfigurationError(validation_text(error)) from (None if own else error)

    @model_validator(mode="before")
    @classmethod
    def _sort_options(cls, values: JsonObject) -> JsonObject:
        values, other = hoisted(values), dict[str, Any]()
        sampling = values["sampling"]
        own = {name: value for name, value in values.items() if name in cls.model_fields}
        for name in values.keys() - own.keys():
            if name in MANAGED_PARAMETERS:
                raise ConfigurationError(f"{name} is set by the backend and cannot be passed")
            (sampling if name in SAMPLING_PARAMETERS else other)[name] = values[name]
        return cls._with_other({**own, "sampling": sampling}, other)

    @classmethod
    def _with_other(cls, own: JsonObject, other: JsonObject) -> JsonObject:
        """Return the values with options that are neither fields nor sampling parameters."""
        if other:
            raise ConfigurationError(unknown_option(next(iter(other)), cls.model_fields))
        return own

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        check_sampling(self.all_sampling())
        check_top_logprobs(self.top_logprobs, -1)
        if self.early_stop:
            check_early_stop(self.early_stop, self.all_sampling())
        _ = self.policy
        return self

    @property
    def policy(self) -> Policy:
        """When an answer is uncertain, and what happens then."""
        return Policy(self.uncertain_when, self.on_high_uncertainty, self.abstention_text)

    def deciding(self, strategy: Strategy | None = None, *, streamed: bool = False) -> Strategy:
        """Return a strategy, or the configured one, with the retries and the policy around it."""
        strategy = strategy or self.strategy
        if self.max_retries and not streamed:
            strategy = RetryErrors(strategy, attempts=self.max_retries + 1)
        return self.policy.wrap(strategy)

    def all_sampling(self, stop: Sequence[str] = ()) -> JsonObject:
        """Return all sampling parameters, with further stop strings."""
        stops = list(dict.fromkeys([*(self.stop or ()), *stop]))
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens, "stop": stops}
        return self.sampling | {name: one for name, one in own.items() if one not in (None, [])}

    def updated(self, options: Mapping[str, Any]) -> Settings:
        """Return these settings with some options changed; all are checked as at construction."""
        for name in options:
            if name not in Settings.model_fields and name not in SAMPLING_PARAMETERS:
                raise InvalidRequestError(unknown_option(name, Settings.model_fields))
        own = {name: getattr(self, name) for name in Settings.model_fields}
        return Settings(**combined(own, options))

    def plain(self) -> JsonObject:
        """Return all options as plain data; what is none is described."""
        plain = {name: _plain(getattr(self, name)) for name in Settings.model_fields}
        return {**plain, **self.all_sampling()}


def hoisted(options: Mapping[str, Any]) -> JsonObject:
    """Return options with those fields as options of their own that stand in their `sampling`.

    Where one stands in both places, the option counts.
    """
    sampling = options.get("sampling") or {}
    if not isinstance(sampling, Mapping):
        raise ConfigurationError(f"sampling is {sampling!r}; it maps parameters to their values")
    fields = {name: one for name, one in sampling.items() if name in Settings.model_fields}
    rest = {name: one for name, one in sampling.items() if name not in fields}
    return {**fields, **options, "sampling": rest}


def combined(options: Mapping[str, Any], changes: Mapping[str, Any]) -> JsonObject:
    """Return options with changes, wherever each of both is written: `sampling` is joined."""
    before, after = hoisted(options), hoisted(changes)
    return {**before, **after, "sampling": {**before["sampling"], **after["sampling"]}}


def unknown_option(name: str, fields: Iterable[str]) -> str:
    """Return the message for an option that nobody knows, with the nearest names."""
    return f"unknown option {name!r}{suggestion(name, {*fields, *SAMPLING_PARAMETERS})}"


def _plain(value: object) -> object:
    return value if isinstance(value, str | int | float | list | dict | None) else repr(value)
