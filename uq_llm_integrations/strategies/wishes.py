"""What a strategy can ask of its driver, and what every strategy is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.availability import check_available
from uq_llm_integrations.methods.registry import DEFAULT_METHODS
from uq_llm_integrations.methods.wishes import (
    Compute,
    Decode,
    Encode,
    Generate,
    Inspect,
    Rescore,
    Split,
    Together,
)
from uq_llm_integrations.records import Request, Result
from uq_llm_integrations.strategies.conditions import Condition


@dataclass(frozen=True)
class Delegate:
    """Run a strategy on another backend; the answer is its result.

    That backend's tokens are its own, so the prompt is encoded again from the request's text.
    """

    strategy: Strategy
    request: Request
    methods: Sequence[str]
    backend: Backend


@dataclass(frozen=True)
class Sleep:
    """Wait for some seconds; the answer is None."""

    seconds: float


Wish = (
    Generate | Rescore | Inspect | Encode | Decode | Split | Compute | Together | Delegate | Sleep
)

Steps = Generator[Wish, Any, Result]
"""A run of a strategy. An UncertaintyError of the backend is thrown in where the wish was made."""


class Strategy(ABC):
    """Decides what to generate for a request and which candidate wins. It does no I/O.

    Strategies wrap one another: `Abstain(Retry(BestOfN(8), when=...), when=...)`.
    """

    can_stream: ClassVar[bool] = False
    """Whether the first sample is the answer whatever its scores are, so that it can be shown as
    it is drawn."""

    @abstractmethod
    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Yield wishes and return the result, scored by the methods and those it needs itself."""

    def check(  # noqa: B027  # not every strategy can be refused
        self, request: Request, capabilities: Capabilities
    ) -> None:
        """Raise ConfigurationError where requests like this one can never be served.

        The prompt of `request` is not looked at.
        """

    def samples(self, request: Request) -> int:
        """Return how many candidates the strategy has to choose among."""
        return request.n


def check_condition(
    condition: Condition, samples: int, capabilities: Capabilities, request: Request
) -> None:
    """Raise ConfigurationError for a condition that can never be answered."""
    check_available(condition.methods, capabilities, request.method_options)
    if condition.needs_samples and samples < 2:
        raise ConfigurationError(f"{condition!r} compares samples, but there is only one")


def check_varied(request: Request, n: int) -> None:
    """Raise ConfigurationError where several samples would all be the same."""
    if n > 1 and request.sampling.get("temperature") == 0:
        raise ConfigurationError(
            f"{n} samples at temperature 0 are all the same; set a temperature above 0"
        )


def check_count(name: str, value: int, least: int = 1) -> None:
    """Raise ConfigurationError unless the value is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name} is {value!r}; allowed are whole numbers from {least}")
