"""Strategies that draw candidates and choose: one round, best of N, self-consistency.

A strategy does no I/O, so that the sync and the async driver run the same code.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.decoding.answers import normalised_answer
from uq_llm_integrations.decoding.judge import judge, max_tokens_of, merged, ordered
from uq_llm_integrations.decoding.selection import (
    Answer,
    borda_votes,
    by_votes,
    confidence_votes,
    lowest,
    one_vote,
)
from uq_llm_integrations.decoding.settling import hopeless_watch, is_settled, settled_watch
from uq_llm_integrations.decoding.wishes import (
    Generate,
    Steps,
    Strategy,
    Wish,
    check_available,
    check_count,
    check_varied,
)
from uq_llm_integrations.errors import ConfigurationError, UncertaintyError
from uq_llm_integrations.records import Candidate, Decision, Request, Result, Watch
from uq_llm_integrations.scoring.methods import DEFAULT_METHODS, find_method


@dataclass(frozen=True)
class Single(Strategy):
    """One round of `request.n` candidates, each scored by all methods, in the order drawn."""

    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Ask once and score what comes back."""
        return (yield from drawn(request, methods))


@dataclass(frozen=True)
class BestOfN(Strategy):
    """Draws N candidates and puts the best first.

    `by` is a method, whose lowest score wins; 'borda', a vote in which candidates count by their
    place in `method`'s order; or 'majority', a vote in which they count by exp(-score). Both votes
    are on the answers that `answer` finds in the texts.

    With `settle`, samples that can no longer win are left: those whose log-probabilities have
    already added up too far, where `by` is `maxprob` or `perplexity`. The winner stays the same.
    """

    n: int = 8
    by: str = "perplexity"
    method: str | None = None
    """What votes are weighed by: `self_certainty` for 'borda' and `perplexity` for 'majority',
    unless said otherwise."""
    power: float = 0.5
    answer: Answer = normalised_answer
    settle: bool = True

    def __post_init__(self) -> None:
        check_count("n", self.n)
        if find_method(self._method).level != "sequence":
            raise ConfigurationError(f"{self._method} has no one score to choose by")
        if not math.isfinite(self.power) or self.power < 0:
            raise ConfigurationError(f"power is {self.power!r}; it must be a number from 0")

    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Draw all, and order them."""
        request = replace(request, n=self.n)
        methods = tuple(dict.fromkeys([*methods, self._method]))
        result = yield from drawn(request, methods, self._watch(request))
        return ordered(result, self._key(result))

    def check(self, request: Request, capabilities: Capabilities) -> None:
        """Refuse samples that are all the same, and methods that the backend cannot give."""
        check_varied(request, self.n)
        check_available([self._method], capabilities)
        _check_cap(self.n, capabilities)

    def samples(self, request: Request) -> int:
        """Return N."""
        return self.n

    @property
    def _method(self) -> str:
        usual = {"borda": "self_certainty", "majority": "perplexity"}.get(self.by)
        return self.method or usual if usual else self.by

    def _watch(self, request: Request) -> Watch | None:
        if not self.settle or self.by in {"borda", "majority"}:
            return None
        return hopeless_watch(find_method(self.by).name, max_tokens_of(request))

    def _key(self, result: Result) -> Any:
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
    and None draws all N at once.
    """

    n: int = 16
    answer: Answer = normalised_answer
    method: str = "perplexity"
    """What chooses among the candidates that give the winning answer."""
    settle: float | None = 0.95
    wave: int = 4

    def __post_init__(self) -> None:
        check_count("n", self.n)
        check_count("wave", self.wave)
        find_method(self.method)
        if self.settle is not None and not 0.5 < self.settle <= 1.0:
            raise ConfigurationError(
                f"settle is {self.settle!r}; allowed are None and numbers above 0.5, up to 1"
            )

    def __call__(self, request: Request, methods: Sequence[str] = DEFAULT_METHODS) -> Steps:
        """Draw in waves until the vote is settled."""
        methods = tuple(dict.fromkeys([*methods, self.method]))
        result: Result | None = None
        while result is None or not self._is_settled(result.candidates):
            done = result.candidates if result else ()
            part = numbered(request, len(done), min(self._wave, self.n - len(done)))
            try:
                wave = yield from drawn(part, methods, self._watch(done))
            except UncertaintyError:
                if result is None:
                    raise
                break  # what was drawn before is a result all the same
            result = merged(result, wave) if result else wave
        result = ordered(result, by_votes(result, self.method, self.answer, one_vote))
        return self._counted(result, request)

    def check(self, request: Request, capabilities: Capabilities) -> None:
        """Refuse samples that are all the same, and methods that the backend cannot give."""
        check_varied(request, self.n)
        check_available([self.method], capabilities)
        _check_cap(self.n, capabilities)

    def samples(self, request: Request) -> int:
        """Return N."""
        return self.n

    @property
    def _wave(self) -> int:
        return self.n if self.settle is None else self.wave

    def _is_settled(self, candidates: Sequence[Candidate]) -> bool:
        if len(candidates) >= self.n:
            return True
        return self.settle is not None and is_settled(candidates, self.n, self.answer, self.settle)

    def _watch(self, done: Sequence[Candidate]) -> Watch | None:
        if self.settle is None:
            return None
        return settled_watch(done, self.n, self.answer, self.settle)

    def _counted(self, result: Result, request: Request) -> Result:
        undrawn, most = self.n - len(result.candidates), max_tokens_of(request)
        left = any(one.finish_reason == "abort" for one in result.candidates)
        if not undrawn and not left:
            return result
        usage = result.usage
        saved = usage.saved_tokens + undrawn * (most or 0)
        settled = self._is_settled(result.candidates)
        why = f"the vote was settled at {self.settle}" if settled else "a wave of samples failed"
        decision = Decision("stopped_early", why)
        return replace(result, usage=replace(usage, saved_tokens=saved), decision=decision)


def drawn(
    request: Request, methods: Sequence[str], watch: Watch | None = None
) -> Generator[Wish, Any, Result]:
    """Ask for candidates once and return them scored."""
    started = time.perf_counter()
    candidates: list[Candidate] = yield Generate(request, watch)
    seconds = time.perf_counter() - started
    return judge(candidates, methods, seconds, max_tokens_of(request))


def numbered(request: Request, done: int, count: int) -> Request:
    """Return a request for some more samples, with seeds that go on from those already drawn."""
    sampling = dict(request.sampling)
    if sampling.get("seed") is not None:
        sampling["seed"] += done
    return replace(request, n=count, sampling=sampling)


def _check_cap(n: int, capabilities: Capabilities) -> None:
    if n > capabilities.max_n:
        raise ConfigurationError(f"n is {n}; the backend allows {capabilities.max_n} at most")
