"""The drivers: they carry a strategy's wishes to a backend and send back what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.decoding.strategies import Strategy
from uq_llm_integrations.records import Request, Result


async def adrive(strategy: Strategy, request: Request, backend: Backend) -> Result:
    """Run a strategy for one request."""
    steps = strategy(request)
    wish = next(steps)
    while True:
        candidates = await backend.generate(wish.request)
        try:
            wish = steps.send(candidates)
        except StopIteration as stop:
            result: Result = stop.value
            return result


async def adrive_all(
    strategy: Strategy, requests: Sequence[Request], backend: Backend
) -> list[Result]:
    """Run a strategy for many requests at once; they meet in the backend's batch.

    Where one fails, the others are still finished, and the error's `completed` holds their results.
    """
    for request in requests:
        backend.check(request)
    outcomes = await asyncio.gather(
        *(adrive(strategy, request, backend) for request in requests), return_exceptions=True
    )
    completed = {i: out for i, out in enumerate(outcomes) if isinstance(out, Result)}
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            outcome.completed = completed  # type: ignore[attr-defined]  # ours or a foreign error
            raise outcome
    return list(completed.values())


def drive(strategy: Strategy, request: Request, backend: Backend) -> Result:
    """Run a strategy for one request, blocking."""
    return backend.run(adrive(strategy, request, backend))


def drive_all(strategy: Strategy, requests: Sequence[Request], backend: Backend) -> list[Result]:
    """Run a strategy for many requests at once, blocking."""
    return backend.run(adrive_all(strategy, requests, backend))
