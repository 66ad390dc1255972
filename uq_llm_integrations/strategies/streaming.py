"""Streaming a strategy's answer: the strategy is the same, its one sample comes piece by piece."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import check_available, find_method
from uq_llm_integrations.records import (
    Candidate,
    Request,
    Result,
    SamplingEnd,
    Score,
    StreamPiece,
    TokenTrace,
)
from uq_llm_integrations.strategies.base import (
    Generation,
    Run,
    Strategy,
    check_function,
    check_grammar,
    completed,
)  # fmt: skip  # a list of names
from uq_llm_integrations.strategies.condition_text import as_condition
from uq_llm_integrations.strategies.conditions import Condition, check_condition
from uq_llm_integrations.strategies.results import concluded, scored_result
from uq_llm_integrations.strategies.step_state import StepState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class AnswerPiece:
    """What was added to the answer. The last piece has the `result`, of all of it."""

    text: str
    token_ids: tuple[int, ...]
    trace: TokenTrace
    """The trace of these tokens; exact statistics are in it only with `Request.live`."""
    result: Result | None = None


async def stream_strategy(
    strategy: Strategy, run: Run, stop_if: Condition | str | None = None
) -> AsyncGenerator[AnswerPiece, None]:
    """Yield the answer piece by piece, each step as one where the strategy takes steps.

    A strategy whose answer is known only in the end gives it as one piece. Closing the stream stops
    the engine's work, and so does `stop_if`, a condition on the tokens so far: what was shown stays
    the answer, with the finish reason 'early_stop'. Methods that need more than a trace are scored
    after the last token. Where the stream is closed, or its reader cancelled, before that, the
    run's `on_closed` gets what was drawn, with the finish reason 'abort', its usage and the scores
    of its trace.

    Raises ConfigurationError where such an answer can never be streamed.

    Example:
        run = Run(MeteredBackend(backend), request, ("entropy",))
        async for piece in stream_strategy(Single(), run, "worst_window(entropy, 8) > 3"):
            print(piece.text, end="")
    """
    condition = None if stop_if is None else as_condition(stop_if)
    capabilities = run.backend.capabilities
    check_stream(strategy, run.request, capabilities, run.methods, run.options, condition)
    check_grammar(strategy, run.request)
    check_function("on_closed", run.on_closed)
    stream = _one_piece
    if strategy.can_stream:
        stream = _step_pieces if strategy.takes_steps else _token_pieces
    async with closed_at_end(stream(strategy, run, condition)) as pieces:
        async for piece in pieces:
            yield piece


@dataclass(frozen=True)
class EndedBy(Strategy):
    """Ends an answer that nobody sees before where its stream would be ended by a condition."""

    strategy: Strategy
    stop_if: Condition | str

    async def __call__(self, run: Run) -> Result:
        """Return the result that the stream ends with."""
        if run.request.n != 1:
            raise InvalidRequestError(
                f"stop_if ends one answer, n is {run.request.n}; allowed is 1"
            )
        async with closed_at_end(stream_strategy(self.strategy, run, self.stop_if)) as pieces:
            results = [piece.result async for piece in pieces if piece.result]
        return results[-1]

    def samples(self, request: Request) -> int:
        """Return the strategy's."""
        return self.strategy.samples(request)


async def _one_piece(
    strategy: Strategy, run: Run, stop_if: Condition | None
) -> AsyncGenerator[AnswerPiece, None]:
    result = await completed(strategy, run)
    candidate = result.candidate
    yield AnswerPiece(result.text, candidate.token_ids, candidate.trace, result)


async def _token_pieces(
    strategy: Strategy, run: Run, stop_if: Condition | None
) -> AsyncGenerator[AnswerPiece, None]:
    if run.request.n != 1:
        raise InvalidRequestError(f"n is {run.request.n}; a stream has one answer")
    live = run.request.live or stop_if is not None
    run, started = run.vary(replace(run.request, live=live)), time.perf_counter()
    shown: list[StreamPiece] = []
    async with closed_at_end(run.backend.stream(run.request)) as pieces:
        try:
            async for piece in pieces:
                shown.append(piece)
                if answer := piece.candidate or _cut_off(shown, run.request, stop_if):
                    break
                yield AnswerPiece(piece.text, piece.token_ids, piece.trace)
            else:
                return
            await pieces.aclose()  # no work goes on while the answer is scored
            streamed = Generation([answer], time.perf_counter() - started)
            result = await completed(strategy, replace(run, streamed=iter([streamed])))
        except (GeneratorExit, asyncio.CancelledError):
            _report_closed(run, _drawn(shown, run.request) if shown else None, started)
            raise
    result = result if piece.candidate else _stopped(result, repr(stop_if))
    yield AnswerPiece(piece.text, piece.token_ids, piece.trace, result)


async def _step_pieces(
    strategy: Strategy, run: Run, stop_if: Condition | None
) -> AsyncGenerator[AnswerPiece, None]:
    before, started = StepState(run.request.prompt_ids), time.perf_counter()
    result: Result | None = None
    while not before.is_finished:
        try:
            taken = await strategy.step(run, before)
            after = stopped_state(taken, stop_if, run.request)
            if after.is_finished:
                result = await completed(strategy, replace(run, begun=after))
                result = result if after is taken else _stopped(result, repr(stop_if))
            piece, before = _piece_between(before, after, result), after
            yield piece
        except (GeneratorExit, asyncio.CancelledError):
            if result is None:
                _report_closed(run, before.candidate() if before.token_ids else None, started)
            raise


def _piece_between(before: StepState, after: StepState, result: Result | None) -> AnswerPiece:
    whole, known = after.candidate(), len(before.token_ids)
    text = whole.text if after.is_finished else after.text
    ids, trace = whole.token_ids[known:], whole.trace[known:]
    return AnswerPiece(text[len(before.text) :], ids, trace, result)


def stopped_state(state: StepState, stop_if: Condition | None, request: Request) -> StepState:
    """Return the state, ended where its steps meet the condition and others could follow."""
    if state.is_finished or not _is_met(stop_if, state.candidate(), request):
        return state
    return replace(state, finish_reason="early_stop", held="")  # what was shown stays the answer


def check_stream(
    strategy: Strategy,
    request: Request,
    capabilities: Capabilities,
    methods: Sequence[str],
    options: MethodOptions,
    stop_if: Condition | str | None = None,
) -> None:
    """Raise ConfigurationError where answers like this one can never be streamed."""
    check_available(methods, capabilities, options)
    strategy.check(request, capabilities, options)
    if stop_if is None:
        return
    stop_if = as_condition(stop_if)
    check_condition(stop_if, 1, capabilities, options)
    later = [name for name in stop_if.methods if find_method(name).values is None]
    if later:
        raise ConfigurationError(
            f"stop_if cannot read {', '.join(later)}: only the tokens so far are known then"
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
    candidate = _drawn(shown, request)
    return candidate if _is_met(stop_if, candidate, request) else None


def _drawn(shown: Sequence[StreamPiece], request: Request) -> Candidate:
    """Return all pieces as a candidate that ended with the last of them."""
    return Candidate(
        request.prompt_ids,
        tuple(token for piece in shown for token in piece.token_ids),
        "".join(piece.text for piece in shown),
        reduce(TokenTrace.joined, (piece.trace for piece in shown)),
        "early_stop",
    )


def _report_closed(run: Run, candidate: Candidate | None, started: float) -> None:
    """Hand on what was drawn of an answer that nobody reads any more."""
    if run.on_closed is None or candidate is None:
        return
    try:
        run.on_closed(_closed_result(run, candidate, time.perf_counter() - started))
    except Exception:  # it would take the place of the cancellation that the reader waits for
        logger.exception("what was drawn of a closed stream could not be reported")


def _closed_result(run: Run, candidate: Candidate, seconds: float) -> Result:
    drawn = replace(candidate, finish_reason="abort")
    result = scored_result([drawn], run.methods, seconds, run.request)
    unknown = Score("", reason="the stream was closed before the answer's end")
    missing = {
        name: replace(unknown, method=find_method(name).name)
        for name in run.methods
        if name not in result.scores[0]
    }
    usage = result.usage.at_least(run.backend.usage)
    return concluded(replace(result, scores=({**result.scores[0], **missing},), usage=usage))


def _is_met(stop_if: Condition | None, candidate: Candidate, request: Request) -> bool:
    """Return whether a condition holds of the tokens so far, or cannot be known not to."""
    if stop_if is None:
        return False
    return stop_if.is_met(scored_result([candidate], stop_if.methods, 0.0, request))


def _stopped(result: Result, condition: str) -> Result:
    """Return the result, marked with the condition that ended its stream."""
    decision = replace(result.decision, condition=condition, is_uncertain=True)
    end = SamplingEnd("stopped_early", condition)
    return replace(result, decision=decision, sampling_end=end)
