"""The answer that most samples give, from no more samples than it takes to know it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic.json_schema import SkipJsonSchema

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.errors import ConfigurationError, described
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Candidate, Request, Result, SampleMonitor
from uq_llm_integrations.strategies.adaptive import (
    is_settled,
    leaders_share,
    sample_in_waves,
    settled_monitor,
)
from uq_llm_integrations.strategies.answers import Answer, check_answer, normalised_answer
from uq_llm_integrations.strategies.base import Run, Strategy, check_count, check_many, check_orders
from uq_llm_integrations.strategies.results import (
    by_votes,
    concluded,
    ordered,
)

_LEAST_TO_GIVE_UP = 6


@dataclass(frozen=True)
class SelfConsistency(Strategy):
    """Samples up to N candidates and puts first the one that stands for the most frequent answer.

    With `settle`, they are sampled `wave` at a time, and no more once the majority keeps its lead
    with at least that probability (adaptive consistency, https://arxiv.org/abs/2305.11860);
    `settle=1.0` waits until it is certain, and None samples all N at once. With `give_up`, the
    sampling ends, too, once there are six or more and the leader has no larger share of them: the
    model does not know, and says so by it.

    Raises ConfigurationError for values that can never work.

    Example:
        result = await run_strategy(SelfConsistency(16), request, backend)
    """

    type = "self_consistency"

    n: int = 16
    answer: SkipJsonSchema[Answer] = normalised_answer
    method: str = "perplexity"
    """What chooses among the candidates that give the winning answer."""
    settle: float | None = 0.95
    wave: int = 4
    give_up: float | None = None

    def __post_init__(self) -> None:
        check_count("n", self.n)
        check_count("wave", self.wave)
        check_orders(self.method)
        check_answer(self.answer)
        for name, share in (("settle", self.settle), ("give_up", self.give_up)):
            if not isinstance(share, int | float | None):
                raise ConfigurationError(
                    f"{name} is {described(share)}; it must be a number or None"
                )
        if self.settle is not None and not 0.5 < self.settle <= 1.0:
            raise ConfigurationError(
                f"settle is {described(self.settle)}; allowed are None and numbers above 0.5, up "
                "to 1"
            )
        if self.give_up is not None and not 0.0 < self.give_up < 1.0:
            raise ConfigurationError(
                f"give_up is {described(self.give_up)}; it is a share between 0 and 1"
            )
        if self.give_up is not None and self.settle is None:
            raise ConfigurationError("settle=None takes all samples at once: nothing to give up")

    async def __call__(self, run: Run) -> Result:
        """Sample in waves until the vote is settled."""
        run = run.vary(replace(run.request, n=self.n), [self.method])
        wave = self.n if self.settle is None else self.wave
        result = await sample_in_waves(run, wave, self._monitor, self._why_done)
        # One vote each: self-consistency, https://arxiv.org/abs/2203.11171.
        key = by_votes(result, self.method, self.answer, lambda index: 1.0)
        return concluded(ordered(result, key))

    def check(self, request: Request, capabilities: Capabilities, options: MethodOptions) -> None:
        """Refuse samples that are all the same, and methods that the backend cannot give."""
        check_many(self.n, self.method, request, capabilities, options)

    def samples(self, request: Request) -> int:
        """Return N."""
        return self.n

    def _monitor(self, done: Sequence[Candidate]) -> SampleMonitor | None:
        if self.settle is None:
            return None
        return settled_monitor(done, self.n, self.answer, self.settle)

    def _why_done(self, done: Sequence[Candidate]) -> str | None:
        if self.settle is not None and is_settled(done, self.n, self.answer, self.settle):
            return f"the vote was settled at {self.settle}"
        share = leaders_share(done, self.answer)
        if self.give_up is not None and len(done) >= _LEAST_TO_GIVE_UP and share <= self.give_up:
            return f"no answer had more than {self.give_up:.0%} of the votes"
        return None
