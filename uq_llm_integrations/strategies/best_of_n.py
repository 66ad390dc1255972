"""Strategies that draw candidates and choose: one round, best of N, self-consistency.

A strategy does no I/O, so that the sync and the async driver run the same code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.availability import check_available
from uq_llm_integrations.methods.registry import DEFAULT_METHODS, find_method
from uq_llm_integrations.records import Candidate, Request, Result, SampleMonitor
from uq_llm_integrations.strategies.adaptive import drawn_and_assessed, drawn_in_waves
from uq_llm_integrations.strategies.answers import normalised_answer
from uq_llm_integrations.strategies.judge import Key, concluded, max_tokens_of, ordered
from uq_llm_integrations.strategies.settling import (
    hopeless_monitor,
    is_settled,
    leaders_share,
    settled_monitor,
)
from uq_llm_integrations.strategies.unseen import ALTERNATIVES, is_unbeatable
from uq_llm_integrations.strategies.voting import (
    Answer,
    borda_votes,
    by_votes,
    confidence_votes,
    lowest,
    one_vote,
)
from uq_llm_integrations.strategies.wishes import (
    Steps,
    Strategy,
    check_count,
    check_varied,
)


@dataclass(frozen=True)
class Single(Strategy):
    """One round of `request.n` candidates, each scored by all methods, in the order drawn."""

    can_stream = True

    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Ask once and score what comes back."""
        return concluded((yield from drawn_and_assessed(request, methods)))


@dataclass(frozen=True)
class BestOfN(Strategy):
    """Draws N candidates and puts the best first.

    `by` is a method, whose lowest score wins; 'borda', a vote in which candidates count by their
    place in `method`'s order; or 'majority', a vote in which they count by exp(-score). Both votes
    are on the answers that `answer` finds in the texts.

    With `settle`, samples that can no longer win are left: those whose log-probabilities have
    already added up too far, where `by` is `maxprob` or `perplexity`. The winner stays the same.
    With `wave`, where `by` is `maxprob`, so many are drawn at a time, and no more once no sequence
    that was not drawn can be better (see `unseen`). With `regret`, in nats, both let go of what
    could be better by so much at most: the winner is within it of what N samples would have won.
    """

    n: int = 8
    by: str = "perplexity"
    method: str | None = None
    """What votes are weighed by: `self_certainty` for 'borda' and `perplexity` for 'majority',
    unless said otherwise."""
    power: float = 0.5
    answer: Answer = normalised_answer
    settle: bool = True
    wave: int | None = None
    regret: float = 0.0

    def __post_init__(self) -> None:
        check_count("n", self.n)
        if find_method(self._method).level != "sequence":
            raise ConfigurationError(f"{self._method} has no one score to choose by")
        if not math.isfinite(self.power) or self.power < 0:
            raise ConfigurationError(f"power is {self.power!r}; it must be a number from 0")
        if self.wave is not None:
            check_count("wave", self.wave)
            if self._is_vote or find_method(self.by).name != "MaximumSequenceProbability":
                raise ConfigurationError(
                    f"wave needs by='maxprob'; of unseen sequences no bound of {self.by} is known"
                )
        if not math.isfinite(self.regret) or self.regret < 0:
            raise ConfigurationError(f"regret is {self.regret!r}; allowed are nats from 0")

    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Draw them, and order them."""
        request = self._sharpened(replace(request, n=self.n))
        methods = tuple(dict.fromkeys([*methods, self._method]))
        result = yield from drawn_in_waves(
            request,
            methods,
            self.wave or self.n,
            lambda done: self._monitor(request, done),
            self._why_done,
        )
        return concluded(ordered(result, self._key(result)))

    def check(self, request: Request, capabilities: Capabilities) -> None:
        """Refuse samples that are all the same, and methods that the backend cannot give."""
        check_varied(request, self.n)
        check_available([self._method], capabilities, request.method_options)
        _check_cap(self.n, capabilities)
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
        usual = {"borda": "self_certainty", "majority": "perplexity"}.get(self.by)
        return self.method or usual if usual else self.by

    def _monitor(self, request: Request, done: Sequence[Candidate]) -> SampleMonitor | None:
        if not self.settle or self._is_vote:
            return None
        return hopeless_monitor(
            find_method(self.by).name, max_tokens_of(request), done, self.regret
        )

    def _sharpened(self, request: Request) -> Request:
        if self.wave is None or not 0 <= request.top_logprobs < ALTERNATIVES:
            return request
        return replace(request, top_logprobs=ALTERNATIVES)

    def _why_done(self, before: Result | None, after: Result) -> str | None:
        if self.wave is None or not is_unbeatable(after.candidates, self.regret):
            return None
        return f"no other sequence can be better by more than {self.regret} nats"

    def _key(self, result: Result) -> Key:
        if self.by == "borda":
            votes = borda_votes(result, self._method, self.power)
        elif self.by == "majority":
            votes = confidence_votes(result, self._method)
        else:
            return lowest(result, self.by)
        return by_votes(result, self._method, self.answer, votes)


@dataclass(frozen=True)
class SelfConsistency(Strategy):
    """Draws up to N candidates and puts first the one that stands for the most frequent answer.

    With `settle`, samples are drawn `wave` at a time, and no more once the majority keeps its lead
    with at least that probability (adaptive consistency); `settle=1.0` waits until it is certain,
    and None draws all N at once. With `give_up`, no more are drawn either once six or more have
    been and the leader has no larger share of them: the model does not know, and says so by it.
    """

    n: int = 16
    answer: Answer = normalised_answer
    method: str = "perplexity"
    """What chooses among the candidates that give the winning answer."""
    settle: float | None = 0.95
    wave: int = 4
    give_up: float | None = None

    def __post_init__(self) -> None:
        check_count("n", self.n)
        check_count("wave", self.wave)
        find_method(self.method)
        if self.settle is not None and not 0.5 < self.settle <= 1.0:
            raise ConfigurationError(
                f"settle is {self.settle!r}; allowed are None and numbers above 0.5, up to 1"
            )
        if self.give_up is not None and not 0.0 < self.give_up < 1.0:
            raise ConfigurationError(f"give_up is {self.give_up!r}; it is a share between 0 and 1")
        if self.give_up is not None and self.settle is None:
            raise ConfigurationError("settle=None draws all samples at once: nothing to give up")

    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Draw in waves until the vote is settled."""
        methods = tuple(dict.fromkeys([*methods, self.method]))
        wave = self.n if self.settle is None else self.wave
        result = yield from drawn_in_waves(
            replace(request, n=self.n), methods, wave, self._monitor, self._why_done
        )
        return concluded(ordered(result, by_votes(result, self.method, self.answer, one_vote)))

    def check(self, request: Request, capabilities: Capabilities) -> None:
        """Refuse samples that are all the same, and methods that the backend cannot give."""
        check_varied(request, self.n)
        check_available([self.method], capabilities, request.method_options)
        _check_cap(self.n, capabilities)

    def samples(self, request: Request) -> int:
        """Return N."""
        return self.n

    def _why_done(self, before: Result | None, after: Result) -> str | None:
        done = after.candidates
        if self.settle is not None and is_settled(done, self.n, self.answer, self.settle):
            return f"the vote was settled at {self.settle}"
        share = leaders_share(done, self.answer)
        if self.give_up is not None and len(done) >= _LEAST_TO_GIVE_UP and share <= self.give_up:
            return f"no answer had more than {self.give_up:.0%} of the votes"
        return None

    def _monitor(self, done: Sequence[Candidate]) -> SampleMonitor | None:
        if self.settle is None:
            return None
        return settled_monitor(done, self.n, self.answer, self.settle)


_LEAST_TO_GIVE_UP = 6


def _check_cap(n: int, capabilities: Capabilities) -> None:
    if n > capabilities.max_n:
        raise ConfigurationError(f"n is {n}; the backend allows {capabilities.max_n} at most")
