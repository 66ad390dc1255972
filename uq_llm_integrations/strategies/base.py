"""What a strategy is, and the run of one request that it is given."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import DEFAULT_METHODS, check_available
from uq_llm_integrations.methods.scoring import add_evidence_scores
from uq_llm_integrations.records import Candidate, Request, Result, SampleMonitor
from uq_llm_integrations.strategies.results import scored_result


@dataclass(frozen=True, eq=False)
class Run:
    """One request on its way: what a strategy reads, and through which it reaches the backend.

    `streamed` has the candidates of a stream, which stand for the first generation.
    """

    backend: MeteredBackend
    request: Request
    methods: tuple[str, ...] = DEFAULT_METHODS
    options: MethodOptions = field(default_factory=MethodOptions)
    streamed: list[Candidate] | None = None

    def vary(self, request: Request | None = None, methods: Sequence[str] = ()) -> Run:
        """Return the run of another request, with further methods; the usage is still counted."""
        joined = tuple(dict.fromkeys([*self.methods, *methods]))
        return replace(self, request=request or self.request, methods=joined)

    async def on(self, backend: Backend) -> Run:
        """Return the same run on another backend, whose tokenizer encodes the prompt again."""
        request = self.request
        if request.conversation:
            ids = await backend.encode_chat(request.conversation)
        elif request.text is not None:
            ids = await backend.encode(request.text, chat=request.chat)
        else:
            raise ConfigurationError(
                "another model needs the prompt's text; give the request its `text`"
            )
        other = replace(request, prompt_ids=ids)
        return replace(self, backend=MeteredBackend(backend), request=other, streamed=None)

    async def sample(self, monitor: SampleMonitor | None = None) -> Result:
        """Generate the request's candidates and return them with the scores of their traces."""
        started = time.perf_counter()
        if self.streamed:
            candidates = [self.streamed.pop() for _ in range(len(self.streamed))][::-1]
        else:
            candidates = await self.backend.generate(self.request, monitor)
        seconds = time.perf_counter() - started
        return scored_result(candidates, self.methods, seconds, self.request)

    async def assess(self, result: Result) -> Result:
        """Return the result with the scores of the methods that need more than a trace."""
        return await add_evidence_scores(
            result, self.backend, self.request, self.methods, self.options
        )


class Strategy(ABC):
    """Decides what to generate for a request and which candidate is chosen.

    Strategies wrap one another: `Abstain(Retry(BestOfN(8), when=...), when=...)`.
    """

    can_stream: ClassVar[bool] = False
    """Whether the first sample is the answer whatever its scores are, so that it can be shown
    while it is generated."""

    @abstractmethod
    async def __call__(self, run: Run) -> Result:
        """Return the result, scored by the run's methods and those that the strategy needs."""

    def check(  # noqa: B027  # not every strategy can be refused
        self, request: Request, capabilities: Capabilities, options: MethodOptions
    ) -> None:
        """Raise ConfigurationError where requests like this one can never be served.

        The prompt of `request` is not read.
        """

    def samples(self, request: Request) -> int:
        """Return how many candidates the strategy chooses among."""
        return request.n


async def run_strategy(
    strategy: Strategy,
    request: Request,
    backend: Backend,
    methods: Sequence[str] = DEFAULT_METHODS,
    options: MethodOptions | None = None,
) -> Result:
    """Run a strategy for one request.

    Example:
        result = await run_strategy(BestOfN(4), request, backend, ["entropy"])
    """
    options = options or MethodOptions()
    check_available(methods, backend.capabilities, options)
    strategy.check(request, backend.capabilities, options)
    return await strategy(Run(MeteredBackend(backend), request, tuple(methods), options))


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
