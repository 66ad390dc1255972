"""Streaming a strategy's answer: the strategy is the same, its one sample comes piece by piece."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.decoding.drive import adrive, arun_steps
from uq_llm_integrations.decoding.wishes import Strategy
from uq_llm_integrations.evidence.availability import check_available
from uq_llm_integrations.evidence.wishes import Generate
from uq_llm_integrations.records import Request, Result
from uq_llm_integrations.scoring.methods import DEFAULT_METHODS


async def astream(
    strategy: Strategy,
    request: Request,
    backend: Backend,
    methods: Sequence[str] = DEFAULT_METHODS,
) -> AsyncGenerator[tuple[str, Result | None], None]:
    """Yield (text, None) for each piece and (text, result) for the last.

    A strategy whose answer is known only in the end gives it as one piece. Closing the stream stops
    the engine's work.
    """
    if not strategy.can_stream:
        result = await adrive(strategy, request, backend, methods)
        yield result.text, result
        return
    check_available(methods, backend.capabilities, request.assessment)
    strategy.check(request, backend.capabilities)
    steps = strategy(request, methods)
    wish = next(steps)
    assert isinstance(wish, Generate)
    async with aclosing(backend.stream(wish.request)) as pieces:
        async for piece in pieces:
            if piece.candidate is None:
                yield piece.text, None
                continue
            yield piece.text, await arun_steps(steps, backend, [piece.candidate])
