"""Strategies: generators that ask for candidates, are sent them, and return a Result.

A strategy does no I/O, so that the sync and the async driver run the same code.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from uq_llm_integrations.records import Candidate, Request, Result, Usage
from uq_llm_integrations.scoring.bounds import bounded
from uq_llm_integrations.scoring.methods import DEFAULT_METHODS, check_methods
from uq_llm_integrations.scoring.score import score_candidate


@dataclass(frozen=True)
class Generate:
    """A strategy's wish: continue this prompt; the answer is a list of candidates."""

    request: Request


Steps = Generator[Generate, list[Candidate], Result]


class Strategy(Protocol):
    """Decides what to generate for a request and which candidate wins."""

    def __call__(self, request: Request) -> Steps:
        """Yield wishes and return the result."""


@dataclass(frozen=True)
class Single:
    """One round of `request.n` candidates, each scored by all methods, in the order drawn."""

    methods: Sequence[str] = DEFAULT_METHODS

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", check_methods(self.methods))

    def __call__(self, request: Request) -> Steps:
        """Ask once and score what comes back."""
        started = time.perf_counter()
        candidates = yield Generate(request)
        return judge(candidates, self.methods, time.perf_counter() - started)


def judge(candidates: list[Candidate], methods: Sequence[str], seconds: float) -> Result:
    """Score candidates of one prompt and count what they cost."""
    candidates = [replace(c, trace=bounded(c.trace)) for c in candidates]
    usage = Usage(
        prompt_tokens=len(candidates[0].prompt_ids),
        generated_tokens=sum(len(c.token_ids) for c in candidates if c.finish_reason),
        scored_tokens=sum(len(c.token_ids) for c in candidates if not c.finish_reason),
        cached_tokens=candidates[0].cached_tokens,
        seconds=seconds,
    )
    scores = tuple(score_candidate(candidate, methods) for candidate in candidates)
    return Result(tuple(candidates), scores, usage)
