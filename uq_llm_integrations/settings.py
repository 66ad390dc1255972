"""What a user configures: one set of options, the same at every entrance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from uq_llm_integrations.backends.capabilities import (
    Capabilities,
    check_early_stop,
    check_top_logprobs,
)
from uq_llm_integrations.backends.sampling_values import (
    MANAGED_PARAMETERS,
    SAMPLING_PARAMETERS,
    check_sampling,
    sampling_value,
    stop_strings,
    whole,
)
from uq_llm_integrations.backends.template_values import check_template_values
from uq_llm_integrations.backends.unicode_text import check_unicode
from uq_llm_integrations.coercion import Options, validation_text
from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidOptionError,
    InvalidRequestError,
    UncertaintyError,
    described,
    suggestion,
)
from uq_llm_integrations.identity import Verbatim, canonical, digest
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import (
    DEFAULT_METHODS,
    affordable_methods,
    check_methods,
    foreign_methods,
)
from uq_llm_integrations.records import Conversation, JsonObject
from uq_llm_integrations.secret_names import is_secret_name, sealed
from uq_llm_integrations.stop_rule import EarlyStop
from uq_llm_integrations.strategies.abstain import ABSTENTION, Action, Policy
from uq_llm_integrations.strategies.base import Single, Strategy, why_no_grammar
from uq_llm_integrations.strategies.condition_text import When, as_condition, is_readable
from uq_llm_integrations.strategies.conditions import Condition
from uq_llm_integrations.strategies.retry import RetryErrors
from uq_llm_integrations.strategies.risk import CalibrationField, above_risk

ALL_AFFORDABLE = "all affordable"
"""In place of names: all methods that the backend can serve and that need nothing fitted."""

HOISTED = frozenset({"temperature", "max_tokens", "stop", "n"})
"""Options that may also stand among the sampling parameters, which they are for vLLM."""

NO_PART_OF_ANSWERS = frozenset({"timeout", "max_retries", "calibration_mismatch"})
"""Options that change no answer and no score; a new one is taken to change them."""

NO_PART_OF_SCORES = NO_PART_OF_ANSWERS | {
    "abstention_text",
    "calibration",
    "group",
    "logprobs",
    "methods",
    "on_high_uncertainty",
    "risk",
    "token_scores",
    "top_logprobs",
    "uncertain_when",
}
"""Options that change neither what is sampled nor a score of it."""

BACKEND_OPTIONS = frozenset({"engine_args", "vllm", "huggingface", "generator"})
"""Options of classes and files that hold a backend's arguments, with secrets among them."""

VERBATIM = frozenset({"chat_template_kwargs", "structured_outputs"})
"""Options of which the order of mappings and the types of numbers count, too."""


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


def _sampled(name: str) -> BeforeValidator:
    """Return what makes a value exactly one of a sampling parameter, or refuses it."""
    return BeforeValidator(partial(sampling_value, name))


def _counted(name: str, least: int) -> BeforeValidator:
    return BeforeValidator(partial(whole(least), name))


def _number(value: object) -> object:
    """Return the number that a text says: YAML takes 1e2 for a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


_Read = BeforeValidator(_number)
MaxTokens = Annotated[int | None, _sampled("max_tokens"), _Read]


class Settings(BaseModel):
    """The options of an `UncertaintyModel`, and of every class and file that makes one.

    Sampling parameters of vLLM that are no fields can be given as arguments, too. Raises
    ConfigurationError for an unknown name, and for a value that can never work.

    Example:
        >>> Settings(methods=["entropy"], uncertain_when="entropy > 2", top_p=0.9).sampling
        {'top_p': 0.9}
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

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
    """Ends an answer, streamed or not, once it holds of the tokens so far."""
    n: Annotated[int, _counted("n", 1)] = 1
    """How many samples there are, where the strategy leaves it open."""
    top_logprobs: Annotated[int, _counted("top_logprobs", -1)] = 0
    """How many alternatives of each token come with their log-probabilities, -1 for all."""
    calibration: CalibrationField | None = None
    """What gives each answer a confidence: a `Calibration`, or the path of its file."""
    risk: float | None = None
    """The most that may be wrong of the answers, on the terms of the calibration's guarantee: an
    answer above the threshold for it is too uncertain."""
    group: str | None = None
    """The question's group, where the calibration has a threshold for each."""
    calibration_mismatch: Literal["raise", "warn"] = "raise"
    """What to do where a calibration was made with another model, template, sampling or version."""
    temperature: Annotated[float | None, _sampled("temperature"), _Read] = None
    """What the logits are divided by; 0 is greedy, None leaves it to the engine."""
    max_tokens: MaxTokens = None
    """The most tokens of a sample, None for all that the prompt leaves of the context."""
    stop: Annotated[list[str] | None, _sampled("stop")] = None
    """Strings that end a sample, or one of them; they are no part of its text."""
    sampling: JsonObject = Field(default_factory=dict)
    """Further sampling parameters by vLLM's names."""
    chat_template: bool = False
    """Whether a prompt is put into the model's chat template as a user's turn."""
    chat_template_kwargs: JsonObject = Field(default_factory=dict)
    """Further values for the chat template (`enable_thinking=False`, ...)."""
    allow_special_tokens: bool | None = None
    """Whether names of control tokens (`<|im_end|>`) in what is given become these tokens. Unless
    set, not in the chat template, where only what the template writes does, and in a prompt by
    itself, which is the caller's own template."""
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
            super().__init__(**self._sealed(options))
            return
        except RecursionError:
            raise ConfigurationError("an option stands too deep, or contains itself") from None
        except ValidationError as error:
            # Pydantic wraps what its validators raise; callers are promised our own errors.
            causes = (one.get("ctx", {}).get("error") for one in error.errors())
            own = next((cause for cause in causes if isinstance(cause, UncertaintyError)), None)
            if own is None:
                raise ConfigurationError(validation_text(error)) from error
        if isinstance(own, InvalidRequestError):
            own = InvalidOptionError(str(own))
        raise own  # here, where it has no context with all options in it

    @classmethod
    def _sealed(cls, options: Mapping[str, Any]) -> JsonObject:
        """Return options with secrets as `SecretStr`, those within a backend's arguments too."""
        plain = (cls.model_fields.keys() | SAMPLING_PARAMETERS) - BACKEND_OPTIONS
        return {
            name: one if name in plain and not is_secret_name(name) else sealed({name: one})[name]
            for name, one in options.items()
        }

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
        own = cls._with_other(own, other)
        return {**own, "sampling": check_sampling(sampling)}

    @classmethod
    def _with_other(cls, own: JsonObject, other: JsonObject) -> JsonObject:
        """Return the values with options that are neither fields nor sampling parameters."""
        if other:
            raise ConfigurationError(unknown_option(next(iter(other)), cls.model_fields))
        return own

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        check_unicode(self.abstention_text, "abstention_text")
        check_unicode(self.chat_template_kwargs, "chat_template_kwargs")
        check_template_values(self.chat_template_kwargs)
        check_top_logprobs(self.top_logprobs, -1)
        if self.early_stop:
            check_early_stop(self.early_stop, self.all_sampling())
        if self.strategy.takes_steps and self.sampling.get("structured_outputs"):
            raise ConfigurationError(why_no_grammar(self.strategy, "structured_outputs"))
        if self.calibration is None and (self.risk, self.group) != (None, None):
            raise ConfigurationError("risk and group need a calibration")
        if self.calibration is not None:
            check_methods(self.calibration.methods)
        _ = self.policy
        return self

    @property
    def policy(self) -> Policy:
        """When an answer is uncertain, and what happens then."""
        return Policy(self._uncertain_when, self.on_high_uncertainty, self.abstention_text)

    @property
    def _uncertain_when(self) -> When | None:
        """The condition of the user, or what is above the threshold for the risk."""
        if self.calibration is None or self.risk is None:
            return self.uncertain_when
        above = above_risk(self.calibration, self.risk, self.group)
        return above if self.uncertain_when is None else as_condition(self.uncertain_when) | above

    def all_method_options(self) -> MethodOptions:
        """Return the method options, the calibration among them."""
        own = self.method_options or MethodOptions()
        return own if self.calibration is None else replace(own, calibration=self.calibration)

    def all_methods(self, capabilities: Capabilities) -> tuple[str, ...]:
        """Return the names of the methods to score by, with those that the confidence takes."""
        methods = self.methods
        if methods == (ALL_AFFORDABLE,):
            return affordable_methods(capabilities, self.all_method_options())
        if self.calibration is None:
            return methods
        return tuple(dict.fromkeys((*methods, *self.calibration.methods, "error_probability")))

    def deciding(self, strategy: Strategy | None = None, *, streamed: bool = False) -> Strategy:
        """Return a strategy, or the configured one, with the retries and the policy around it."""
        strategy = strategy or self.strategy
        if self.max_retries and not streamed:
            strategy = RetryErrors(strategy, attempts=self.max_retries + 1)
        return self.policy.wrap(strategy)

    def all_sampling(self, stop: str | Sequence[str] = ()) -> JsonObject:
        """Return all sampling parameters, with further stop strings."""
        stops = list(dict.fromkeys([*(self.stop or ()), *stop_strings(stop)]))
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens, "stop": stops}
        return self.sampling | {name: one for name, one in own.items() if one not in (None, [])}

    def updated(self, options: Mapping[str, Any]) -> Settings:
        """Return these settings with some options changed; all are checked as at construction."""
        for name in options:
            if name not in Settings.model_fields and name not in SAMPLING_PARAMETERS:
                raise InvalidOptionError(unknown_option(name, Settings.model_fields))
        own = {name: getattr(self, name) for name in Settings.model_fields}
        return Settings(**combined(own, options))

    def completed(self, conversation: Conversation) -> Conversation:
        """Return a conversation with the configured values for its template."""
        return replace(
            conversation,
            template={**self.chat_template_kwargs, **conversation.template},
            allow_special_tokens=bool(self.allow_special_tokens)
            or conversation.allow_special_tokens,
        )

    def identity(self) -> JsonObject:
        """Return what answers and their scores depend on, the same in every process.

        Numbers, texts and conditions as they are written, all else as `canonical` text.
        """
        names = Settings.model_fields.keys() - NO_PART_OF_ANSWERS - {"sampling"}
        options = {name: getattr(self, name) for name in names} | self.all_sampling()
        found = {name: _described(name, options[name]) for name in sorted(options)}
        uses_all = self.methods == (ALL_AFFORDABLE,)
        foreign = foreign_methods(None if uses_all else str(found))
        own = {f"method {name}": digest(one) for name, one in foreign.items()}
        return {name: one for name, one in found.items() if one is not None} | own

    def origin(self) -> dict[str, str]:
        """Return all options that change what is sampled, or a score of it, as text by name."""
        own = self.identity()
        return {name: canonical(own[name]) for name in sorted(own.keys() - NO_PART_OF_SCORES)}


@contextmanager
def of_options() -> Iterator[None]:
    """Raise what no request may have as InvalidOptionError, since an option asks for it."""
    try:
        yield
    except InvalidRequestError as error:
        raise InvalidOptionError(str(error)) from None


def hoisted(options: Mapping[str, Any]) -> JsonObject:
    """Return options with those as options of their own that may stand in their `sampling`.

    Where one stands in both places, the option counts.
    """
    sampling = options.get("sampling", {})
    if not isinstance(sampling, Mapping):
        raise ConfigurationError(
            f"sampling is {described(sampling)}; it maps parameters to their values"
        )
    fields = {name: one for name, one in sampling.items() if name in HOISTED}
    rest = {name: one for name, one in sampling.items() if name not in fields}
    return {**fields, **options, "sampling": rest}


def combined(options: Mapping[str, Any], changes: Mapping[str, Any]) -> JsonObject:
    """Return options with changes, wherever each of both is written: `sampling` is joined."""
    before, after = hoisted(options), hoisted(changes)
    return {**before, **after, "sampling": {**before["sampling"], **after["sampling"]}}


def unknown_option(name: str, fields: Iterable[str]) -> str:
    """Return the message for an option that nobody knows, with the nearest names."""
    return f"unknown option {described(name)}{suggestion(name, {*fields, *SAMPLING_PARAMETERS})}"


def _described(name: str, value: object) -> object:
    """Return a text, a number or texts as they are, a condition as it is written."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | bool | None):
        return value
    if isinstance(value, int | float):
        return int(value) if float(value).is_integer() else float(value)
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return list(value)
    if isinstance(value, Condition) and is_readable(value):
        return repr(value)
    return canonical(Verbatim(value) if name in VERBATIM else value)
