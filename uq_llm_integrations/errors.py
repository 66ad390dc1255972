"""Everything that can go wrong, as one tree.

UncertaintyError
├── ConfigurationError (ValueError)       an argument that can never work
│   ├── UnknownMethodError                no such uncertainty method
│   ├── MethodUnavailableError            the backend cannot give what the method needs
│   │   └── NotShareableError             the engine's layers do not fit the model's definition
│   ├── ModelNotFoundError                no such model folder or hub name
│   └── MissingDependencyError            an optional package is not installed
├── InvalidRequestError (ValueError)      one request that can never work
│   ├── EmptyPromptError
│   └── PromptTooLongError
│       └── SourcesTooLongError           no room for the answer behind all sources
├── EvidenceError (RuntimeError)          what a method needs could not be gathered
├── HighUncertaintyError                  the answer is too uncertain; carries the Result; retryable
├── InvalidAnswerError (ValueError)       the answer is not the object, or the call, that was due
│   └── IncompleteAnswerError             it was cut before the object, or the call, was whole
└── EngineError (RuntimeError)            the engine failed, the request may be fine
    ├── EngineStartError
    ├── EngineLostError                   it has died and is not started again
    ├── EngineClosedError                 `close` was called
    ├── EngineDeadError (ConnectionError)      retryable on a fresh engine
    ├── EngineTimeoutError (ConnectionError)   no answer in time; retryable
    └── EngineBusyError (ConnectionError)      its queue is full; retryable

Each message says what was wrong and what is allowed; `is_retryable` is True where trying the same
again can help. The built-in bases are such that frameworks which retry by them, as LangGraph does,
try again in these cases alone. All of them can be pickled, with their message and attributes.

Example:
    >>> from uq_llm_integrations import ConfigurationError, ScriptedBackend, UncertaintyModel
    >>> try:
    ...     UncertaintyModel(ScriptedBackend(["Paris"]), methods=["rauk"])
    ... except ConfigurationError as error:
    ...     print(error)
    unknown uncertainty method 'rauk'; did you mean 'rauq'?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from pydantic import ValidationError

from uq_llm_integrations.records import Result
from uq_llm_integrations.secret_names import sealed

Error = TypeVar("Error", bound="UncertaintyError")

_SHOWN_CHARACTERS = 200


class UncertaintyError(Exception):
    """The root of all errors raised on purpose by this package."""

    is_retryable: bool = False

    completed: Mapping[int, Result] = {}
    """Results of the same batch that were finished before the error, by their index in it."""

    def __str__(self) -> str:
        return super().__str__().strip() or f"{type(self).__name__} without a message"

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the class with `args`, which is the message alone.
        return _restored, (type(self), self.args, self.__dict__.copy())


def _restored(kind: type[Error], args: tuple[object, ...], attributes: dict[str, object]) -> Error:
    error = _built_in(kind).__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


def _built_in(kind: type[BaseException]) -> type[BaseException]:
    """Return the built-in class that lays out an error's memory, not always its first base."""
    base = kind.__base__
    if kind.__module__ == "builtins" or base is None:
        return kind
    return _built_in(base)


class ConfigurationError(UncertaintyError, ValueError):
    """An argument that can never work, found before anything is loaded."""


class CalibrationMismatchError(ConfigurationError):
    """A calibration was made with another model, template, sampling or version."""


class UnknownMethodError(ConfigurationError):
    """No uncertainty method has this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown uncertainty method {described(name)}{suggestion(name, known)}")


class MethodUnavailableError(ConfigurationError):
    """The backend cannot give what a method needs."""


class NotShareableError(MethodUnavailableError):
    """A part of the model's definition has no counterpart in the engine; the message names it."""


class ModelNotFoundError(ConfigurationError):
    """The model is neither a folder, a bundled model nor a hub name that can be loaded."""


class MissingDependencyError(ConfigurationError, ImportError):
    """An optional package is missing; the message names the pip command that installs it."""

    def __init__(self, package: str, extra: str = "", *, source: str | None = None) -> None:
        """Name an extra of this package, or a `source` where pip has it from."""
        wanted = source or f"'uq-llm-integrations[{extra}]'"
        super().__init__(f"{package} is not installed; run: pip install {wanted}")


class InvalidRequestError(UncertaintyError, ValueError):
    """A request that can never work; nothing was sent to the engine."""


class InvalidOptionError(ConfigurationError, InvalidRequestError):
    """An option with a value that can never work, given to a class or to one of its calls."""


class EmptyPromptError(InvalidRequestError):
    """The prompt has no tokens."""

    def __init__(self) -> None:
        super().__init__("the prompt is empty; it must hold at least one token")


class PromptTooLongError(InvalidRequestError):
    """The prompt leaves no room for an answer in the model's context."""

    def __init__(self, length: int, context_length: int) -> None:
        super().__init__(
            f"the prompt has {length} tokens; at most {context_length - 1} fit into the context of "
            f"{context_length} tokens with room for one token of answer"
        )


class SourcesTooLongError(PromptTooLongError):
    """An answer does not fit behind all of its sources; nothing was scored.

    `source_tokens` says how many tokens each source takes.
    """

    def __init__(
        self, length: int, answer: int, context_length: int, source_tokens: tuple[int, ...]
    ) -> None:
        shown = ", ".join(map(str, source_tokens))
        super(PromptTooLongError, self).__init__(
            f"the prompt with all {len(source_tokens)} sources has {length} tokens and the answer "
            f"{answer}; at most {context_length - 1} fit into the context of {context_length} "
            f"tokens; the sources have {shown} tokens: give fewer of them, or shorter ones"
        )
        self.source_tokens = source_tokens


class EvidenceError(UncertaintyError, RuntimeError):
    """What a method needs could not be gathered; the message says why."""


class HighUncertaintyError(UncertaintyError):
    """The answer met a condition of uncertainty; another sample may be more certain.

    `result` has it with all its scores; where a framework's answer was judged afterwards, `text`
    and `uncertainty` (its metadata) have it instead.
    """

    is_retryable = True

    def __init__(
        self,
        condition: str | None = None,
        *,
        result: Result | None = None,
        text: str = "",
        uncertainty: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(f"the answer is too uncertain: {condition}")
        self.condition = condition
        self.result, self.text, self.uncertainty = result, text, uncertainty


class InvalidAnswerError(UncertaintyError, ValueError):
    """The answer is not the object, or the call of a tool, that was due.

    `text` has what there is of it, `finish_reason` why the answer ended, and `uncertainty` its
    metadata with all scores.
    """

    def __init__(
        self,
        reason: str,
        *,
        text: str = "",
        finish_reason: str | None = None,
        uncertainty: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(reason)
        self.text, self.finish_reason, self.uncertainty = text, finish_reason, uncertainty


class IncompleteAnswerError(InvalidAnswerError):
    """The answer ended before the object, or the call, was whole: by `max_tokens`, a stop, ..."""


class EngineError(UncertaintyError, RuntimeError):
    """The engine failed; the request itself may be fine."""


class EngineStartError(EngineError):
    """The engine could not be started."""


class EngineLostError(EngineError):
    """The engine has died, and as often as `restart_engine` allows it was started again before."""


class EngineClosedError(EngineError):
    """`close` was called, before the call or while it was under way; a new object goes on."""


class EngineDeadError(EngineError, ConnectionError):
    """The engine's processes are gone; the next call starts a fresh engine."""

    is_retryable = True


class EngineTimeoutError(EngineError, ConnectionError):
    """No sign of life within the call's deadline, or no answer or next piece within its timeout."""

    is_retryable = True


class EngineBusyError(EngineError, ConnectionError):
    """The engine's queue is full (`max_num_queued_reqs`, `max_num_queued_tokens`)."""

    is_retryable = True


def reason(error: BaseException) -> str:
    """Return what an error says, or its cause, or else its name: never nothing.

    Of pydantic's, what is wrong where; not the mappings that it is in, with all their values.
    """
    if isinstance(error, ValidationError):
        return "; ".join(_wrong(**one) for one in error.errors(include_url=False))
    if text := str(error).strip():
        return text
    return reason(error.__cause__) if error.__cause__ else type(error).__name__


def _wrong(loc: tuple[int | str, ...], msg: str, input: object, **others: object) -> str:
    text = f"{'.'.join(map(str, loc))}: {msg}" if loc else msg
    return f"{text}, not {described(input)}" if isinstance(input, str | int | float) else text


def described(value: object) -> str:
    """Return how a value from outside is written in a message: short, and without secrets.

    Example:
        >>> described({"hf_token": "hf_1"}), described("x" * 1000)[-5:]
        ("{'hf_token': SecretStr('**********')}", 'xx...')
    """
    try:
        text = repr(sealed(value))
    except Exception:  # of a caller's own class, too deep, or a number of too many digits
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest known names, or all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; allowed are {', '.join(names)}"
