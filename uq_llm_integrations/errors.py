"""Everything that can go wrong, as one tree.

UncertaintyError
├── ConfigurationError (ValueError)       an argument that can never work
│   ├── UnknownMethodError                no such uncertainty method
│   ├── MethodUnavailableError            the backend cannot give what the method needs
│   ├── ModelNotFoundError                no such model folder or hub name
│   └── MissingDependencyError            an optional package is not installed
├── InvalidRequestError (ValueError)      one request that can never work
│   ├── EmptyPromptError
│   └── PromptTooLongError
├── HighUncertaintyError                  the answer is too uncertain; carries the Result
└── EngineError (RuntimeError)            the engine failed, the request may be fine
    ├── EngineStartError
    ├── EngineDeadError                   retryable on a fresh engine
    └── EngineTimeoutError                retryable on a fresh engine

Each message says what was wrong and what is allowed; `is_retryable` says whether trying the same
again can help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uq_llm_integrations.records import Result


class UncertaintyError(Exception):
    """The root of all errors raised on purpose by this package."""

    is_retryable: bool = False

    completed: Mapping[int, Result] = {}
    """Results of the same batch that were finished before the error, by their place in it."""


class ConfigurationError(UncertaintyError, ValueError):
    """An argument that can never work, found before anything is loaded."""


class UnknownMethodError(ConfigurationError):
    """No uncertainty method has this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown uncertainty method {name!r}{suggestion(name, known)}")


class MethodUnavailableError(ConfigurationError):
    """The backend cannot give what a method needs."""


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


class HighUncertaintyError(UncertaintyError):
    """The answer met a condition of uncertainty.

    `result` has it with all its scores; where a framework's answer was judged afterwards, `text`
    and `uncertainty` (its metadata) have it instead, and drawing again can help.
    """

    def __init__(
        self,
        result: Result | None = None,
        *,
        condition: str | None = None,
        text: str = "",
        uncertainty: Mapping[str, Any] | None = None,
    ) -> None:
        condition = result.decision.condition if result else condition
        super().__init__(f"the answer is too uncertain: {condition}")
        self.result = result
        self.text = result.text if result else text
        self.uncertainty = uncertainty
        self.is_retryable = result is None


class EngineError(UncertaintyError, RuntimeError):
    """The engine failed; the request itself may be fine."""


class EngineStartError(EngineError):
    """The engine could not be started."""


class EngineDeadError(EngineError):
    """The engine's processes are gone; the next call starts a fresh engine."""

    is_retryable = True


class EngineTimeoutError(EngineDeadError):
    """The engine gave no sign of life within the deadline, or no answer within a call's timeout."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest known names, or all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; allowed are {', '.join(names)}"
