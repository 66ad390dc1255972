"""The least uncertain of N samples, or the one that they vote for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic.json_schema import SkipJsonSchema

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.backends.capabilities import most_tokens
from uq_llm_integrations.errors import ConfigurationError, described
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.records import Candidate, Request, Result
from uq_llm_integrations.strategies.adaptive import (
    ALTERNATIVES,
    hopeless_monitor,
    is_unbeatable,
    sample_in_waves,
)
from uq_llm_integrations.strategies.answers import Answer, check_answer, normalised_answer
from uq_llm_integrations.strategies.base import (
    Run,
    Strategy,
    check_count,
    check_many,
    check_number,
    check_orders,
)
from uq_llm_integrations.strategies.results import (
    Key,
    by_votes,
    concluded,
    lowest,
    ordered,
)


@dataclass(frozen=True)
class BestOfN(Strategy):
    """Samples N candidates and puts the best first.

    `by` is a method, whose lowest score wins; 'borda', a vote in which candidates count by their
    rank in `method`'s order; or 'majority', a vote in which they count by exp(-score). Both votes
    are on the answers that `answer` finds in the texts.

    With `settle`, samples that can no longer win are aborted: those whose log-probabilities have
    already added up too far, where `by` is `maxprob`, `perplexity` or `mean_nll`. The winner stays
    the same. With `wave`, where `by` is `maxprob`, so many are sampled at a time, and no more once
    no sequence that was not sampled can be better (see `most_unseen`). With `regret`, in nats of
    the (mean) log-probability, both let go of what could be better by so much at most: the winner
    is within it of what N samples would have won.

    Raises ConfigurationError for values that can never work.

    Example:
        result = await run_strategy(BestOfN(8, by="entropy"), request, backend)
    """

    type = "best_of_n"

    n: int = 8
    by: str = "perplexity"
    method: str | None = None
    """What votes are weighed by: `self_certainty` for 'borda' and `mean_nll` for 'majority',
    unless said otherwise."""
    power: float = 0.5
    answer: SkipJsonSchema[Answer] = normalised_answer
    settle: bool = True
    wave: int | None = None
    regret: float = 0.0

    def __post_init__(self) -> None:
        check_count("n", self.n)
        if not isinstance(self.by, str):
            raise ConfigurationError(
                f"by is {described(self.by)}; it is a method's name or a vote's"
            )
        if not isinstance(self.method, str | None):
            raise ConfigurationError(f"method is {described(self.method)}; it is a method's name")
        if not isinstance(self.settle, bool):
            raise ConfigurationError(
                f"settle is {described(self.settle)}; allowed are True and False"
            )
        check_orders(self._method)
        check_answer(self.answer)
        check_number("power", self.power)
        if self.wave is not None:
            check_count("wave", self.wave)
            if self._is_vote or find_method(self.by).name != "MaximumSequenceProbability":
                raise ConfigurationError(
                    f"wave needs by='maxprob'; of unseen sequences no bound of {self.by} is known"
                )
        check_number("regret", self.regret)

    async def __call__(self, run: Run) -> Result:
        """Sample the candidates, and order them."""
        run = run.vary(self._sharpened(replace(run.request, n=self.n)), [self._method])
        most = most_tokens(run.request, run.backend.capabilities.context_length)
        settles = self.settle and not self._is_vote
        result = await sample_in_waves(
            run,
            self.wave or self.n,
            lambda done: hopeless_monitor(self.by, most, done, self.regret) if settles else None,
            self._why_done,
        )
        return concluded(ordered(result, self._key(result)))

    def check(self, request: Request, capabilities: Capabilities, options: MethodOptions) -> None:
        """Refuse samples that are all the same, and methods that the backend cannot give."""
        check_many(self.n, self._method, request, capabilities, options)
        if self.wave is not None and 0 <= capabilities.max_top_logprobs < ALTERNATIVES:
            raise ConfigurationError(
                f"wave needs {ALTERNATIVES} top log-probabilities; "
                f"the backend gives {capabilities.max_top_logprobs}"
            )

    def samples(self, request: Request) -> int:
        """Return N."""
        return self.n

    @property
    def _is_vote(self) -> bool:
        return self.by in {"borda", "majority"}

    @property
    def _method(self) -> str:
        usual = {"borda": "self_certainty", "majority": "mean_nll"}.get(self.by)
        return self.method or usual if usual else self.by

    def _sharpened(self, request: Request) -> Request:
        if self.wave is None or not 0 <= request.top_logprobs < ALTERNATIVES:
            return request
        return replace(request, top_logprobs=ALTERNATIVES)

    def _why_done(self, done: Sequence[Candidate]) -> str | None:
        if self.wave is None or not is_unbeatable(done, self.regret):
            return None
        return f"no other sequence can be better by more than {self.regret} nats"

    def _key(self, result: Result) -> Key:
        if self.by == "borda":
            votes = _borda_votes(result, self._method, self.power)
        elif self.by == "majority":
            votes = _probability_votes(result, self._method)
        else:
            return lowest(result, self.by)
        return by_votes(result, self._method, self.answer, votes)


def _borda_votes(result: Result, method: str, power: float) -> Callable[[int], float]:
    """Return votes by rank: (N - rank + 1) ** power, the least uncertain at rank 1.

    https://arxiv.org/abs/2502.18581, where `method` is self-certainty.
    """
    order = sorted(range(len(result.candidates)), key=lowest(result, method))
    votes = {index: float(len(order) - above) ** power for above, index in enumerate(order)}
    return votes.__getitem__


def _probability_votes(result: Result, method: str) -> Callable[[int], float]:
    """Return votes of exp(-score), in (0, 1] where scores start at 0; unknown scores have none."""

    def votes(index: int) -> float:
        score = result.scores[index][method]
        return 0.0 if score.value is None else math.exp(-score.value)

    return votes
