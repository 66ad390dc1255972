"""Streaming a strategy's answer: the strategy is the same, its one sample comes piece by piece."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import reduce

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError
from uq_llm_integrations.methods.availability import check_available
from uq_llm_integrations.methods.registry import DEFAULT_METHODS, find_method
from uq_llm_integrations.methods.wishes import Generate
from uq_llm_integrations.records import (
    Candidate,
    Decision,
    Request,
    Result,
    StreamPiece,
    TokenTrace,
)
from uq_llm_integrations.strategies.conditions import Condition
from uq_llm_integrations.strategies.drive import adrive, arun_steps
from uq_llm_integrations.strategies.judge import judge
from uq_llm_integrations.strategies.wishes import Strategy, check_condition


@dataclass(frozen=True, eq=False)
class AnswerPiece:
    """What was added to the answer. The last piece has the `result`, of all of it."""

    text: str
    token_ids: tuple[int, ...]
    trace: TokenTrace
    """The trace of these tokens; exact statistics are in it only where `Request.live` asks."""
    result: Result | None = None


async def astream(
    strategy: Strategy,
    request: Request,
    backend: Backend,
    methods: Sequence[str] = DEFAULT_METHODS,
    stop_if: Condition | None = None,
) -> AsyncGenerator[AnswerPiece, None]:
    """Yield the answer piece by piece.

    A strategy whose answer is known only in the end gives it as one piece. Closing the stream stops
    the engine's work, and so does `stop_if`, a condition on the tokens so far: what was shown stays
    the answer, with the finish reason 'early_stop' and the decision 'stopped_early'.
    """
    check_stream(strategy, request, backend.capabilities, methods, stop_if)
    if not strategy.can_stream:
        result = await adrive(strategy, request, backend, methods)
        candidate = result.candidate
        yield AnswerPiece(result.text, candidate.token_ids, candidate.trace, result)
        return
    if request.n != 1:
        raise InvalidRequestError(f"n is {request.n}; a stream has one answer")
    steps = strategy(replace(request, live=request.live or stop_if is not None), methods)
    wish = next(steps)
    assert isinstance(wish, Generate)
    shown: list[StreamPiece] = []
    async with aclosing(backend.stream(wish.request)) as pieces:
        async for piece in pieces:
            shown.append(piece)
            ended = piece.candidate or _cut_off(shown, request, stop_if)
            if ended is None:
                yield AnswerPiece(piece.text, piece.token_ids, piece.trace)
                continue
            await pieces.aclose()  # no work goes on while the answer is scored
            result = await arun_steps(steps, backend, [ended])
            if stop_if is not None and not piece.candidate:
                decision = Decision("stopped_early", repr(stop_if), is_uncertain=True)
                result = replace(result, decision=decision)
            yield AnswerPiece(piece.text, piece.token_ids, piece.trace, result)
            return


def check_stream(
    strategy: Strategy,
    request: Request,
    capabilities: Capabilities,
    methods: Sequence[str],
    stop_if: Condition | None,
) -> None:
    """Raise ConfigurationError where answers like this one can never be streamed."""
    check_available(methods, capabilities, request.method_options)
    strategy.check(request, capabilities)
    if stop_if is None:
        return
    check_condition(stop_if, 1, capabilities, request)
    later = [name for name in stop_if.methods if find_method(name).evidence]
    if later:
        raise ConfigurationError(
            f"stop_if cannot ask for {', '.join(later)}: only the tokens so far are known then"
        )
    if not strategy.can_stream:
        raise ConfigurationError(
            "stop_if ends a stream, but the strategy's answer is known only in the end"
        )


def _cut_off(
    shown: Sequence[StreamPiece], request: Request, stop_if: Condition | None
) -> Candidate | None:
    """Return what was shown as a candidate where it has become too uncertain to go on."""
    if stop_if is None:
        return None
    candidate = Candidate(
        request.prompt_ids,
        tuple(token for piece in shown for token in piece.token_ids),
        "".join(piece.text for piece in shown),
        reduce(TokenTrace.joined, (piece.trace for piece in shown)),
        "early_stop",
    )
    is_fine = stop_if(judge([candidate], stop_if.methods, seconds=0.0)) is False
    return None if is_fine else candidate
