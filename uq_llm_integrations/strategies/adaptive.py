"""Drawing samples a few at a time, until more of them are not worth it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from uq_llm_integrations.errors import UncertaintyError
from uq_llm_integrations.methods.assess import assessed
from uq_llm_integrations.methods.wishes import Generate
from uq_llm_integrations.records import Candidate, Decision, Request, Result, SampleMonitor
from uq_llm_integrations.strategies.judge import judge, max_tokens_of, merged
from uq_llm_integrations.strategies.wishes import Wish

Done = Callable[[Result | None, Result], str | None]
"""Given the result before a wave and after it, tells why no more are drawn, None to go on."""


def drawn(
    request: Request, methods: Sequence[str], monitor: SampleMonitor | None = None
) -> Generator[Wish, Any, Result]:
    """Ask for candidates once and return them scored."""
    started = time.perf_counter()
    candidates: list[Candidate] = yield Generate(request, monitor)
    seconds = time.perf_counter() - started
    return judge(candidates, methods, seconds, max_tokens_of(request))


def drawn_and_assessed(request: Request, methods: Sequence[str]) -> Generator[Wish, Any, Result]:
    """Ask for candidates once and return them with the scores of all methods."""
    return (yield from assessed((yield from drawn(request, methods)), request, methods))


def drawn_in_waves(
    request: Request,
    methods: Sequence[str],
    wave: int,
    monitor: Callable[[Sequence[Candidate]], SampleMonitor | None],
    done: Done,
) -> Generator[Wish, Any, Result]:
    """Draw up to `request.n` candidates, `wave` at a time, and say why where fewer were drawn.

    `monitor` gets the candidates of the waves before. A wave that fails ends the drawing; what was
    drawn before is a result all the same.
    """
    result: Result | None = None
    why: str | None = None
    while why is None and (result is None or len(result.candidates) < request.n):
        count = len(result.candidates) if result else 0
        part = numbered(request, count, min(wave, request.n - count))
        try:
            after = yield from drawn(part, methods, monitor(result.candidates if result else ()))
        except UncertaintyError as error:
            if result is None:
                raise
            why = f"a wave of samples failed: {error}"
            break
        after = merged(result, after) if result else after
        why, result = done(result, after), after
    assert result is not None
    return _counted((yield from assessed(result, request, methods)), request, why)


def numbered(request: Request, done: int, count: int) -> Request:
    """Return a request for some more samples, with seeds that go on from those already drawn."""
    sampling = dict(request.sampling)
    if sampling.get("seed") is not None:
        sampling["seed"] += done
    return replace(request, n=count, sampling=sampling)


def _counted(result: Result, request: Request, why: str | None) -> Result:
    undrawn = request.n - len(result.candidates)
    left = any(one.finish_reason == "abort" for one in result.candidates)
    if not undrawn and not left:
        return result
    usage, most = result.usage, max_tokens_of(request) or 0
    usage = replace(usage, saved_tokens=usage.saved_tokens + undrawn * most)
    decision = Decision("stopped_early", why or "samples that no longer mattered were left")
    return replace(result, usage=usage, decision=decision)
