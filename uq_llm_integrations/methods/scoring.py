"""From candidates to scores, with lm-polygraph's traps closed.

lm-polygraph returns NaN or 0.0, which reads as most certain, for an empty text and for a NaN that
it was given, and its token-level estimators drop the last token, which they take for the end of
text. Here the first two have no value but a reason, and every token keeps its score.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite

import numpy as np

from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.errors import EvidenceError, UncertaintyError
from uq_llm_integrations.errors import reason as reason_of
from uq_llm_integrations.methods.base import Ends, Method, Value
from uq_llm_integrations.methods.claims import claims
from uq_llm_integrations.methods.context import Context
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.records import (
    Candidate,
    Claim,
    Floats,
    Inspection,
    Request,
    Result,
    Score,
    TokenTrace,
)

_log = logging.getLogger(__name__)

NO_TOKENS = "there are no tokens to score"


def score_candidate(candidate: Candidate, methods: Iterable[str]) -> dict[str, Score]:
    """Return the candidate's scores by those of the names that read the trace alone."""
    found = {name: find_method(name) for name in methods}
    return {
        name: score_trace(candidate.trace, method)
        for name, method in found.items()
        if method.values is not None
    }


def score_trace(trace: TokenTrace, method: Method) -> Score:
    """Return one method's score of a trace; a score that cannot be known has a reason instead.

    That is so, too, where the method's own code raises.

    Example:
        >>> trace = TokenTrace(10, logprob=np.log([0.5, 0.5]))
        >>> score_trace(trace, find_method("perplexity")).value
        2.0
    """
    if not trace.logprob.size:
        return Score(method.name, reason=trace.damage or NO_TOKENS)
    try:
        return _trace_score(trace, method)
    except Exception as error:
        return Score(method.name, reason=reason_of(_failure(method, error)))


def _trace_score(trace: TokenTrace, method: Method) -> Score:
    values = method.values(trace) if method.values else None
    if values is None:
        return Score(method.name, reason=f"{trace.why_inexact}; no bound follows from the top k")
    if isinstance(values, tuple):
        lower, values = values
        if not np.array_equal(lower, values):
            return _interval(method, lower, values, trace)
    if method.reduce is None:
        return score_of_value(method, values, trace)
    value = float(method.reduce(values))
    value = method.transform(value) if method.transform else value
    return Score(method.name, value) if isfinite(value) else _not_finite(method, trace)


def token_values(trace: TokenTrace, method: Method) -> Ends | None:
    """Return [T] lower and upper ends of a trace method's values, before its `transform`.

    Higher is more uncertain. Equal where they are exact; None where nothing is known. `trace` has
    gone through `bounded`.
    """
    try:
        values = method.values(trace) if method.values and not trace.damage else None
    except Exception as error:
        _failure(method, error)
        return None
    return values if values is None or isinstance(values, tuple) else (values, values)


def _interval(method: Method, lower: Floats, upper: Floats, trace: TokenTrace) -> Score:
    why = trace.why_inexact
    if method.reduce is None:
        return Score(method.name, reason=f"{why}; the trace holds bounds")
    low, high = float(method.reduce(lower)), float(method.reduce(upper))
    if method.transform:
        low, high = method.transform(low), method.transform(high)
    if not np.isfinite([low, high]).all():
        return _not_finite(method, trace)
    return Score(method.name, None, why, low, high)


def score_of_value(
    method: Method, value: Value, trace: TokenTrace, parts: Sequence[Claim] = ()
) -> Score:
    """Return the score of a value, or of the reason that stands in its place."""
    if method.level == "claim" and not parts:
        return Score(method.name, reason="the answer holds no claim")
    if isinstance(value, Exception):
        return Score(method.name, reason=reason_of(value))
    if not np.isfinite(value).all():
        return _not_finite(method, trace)
    match method.level:
        case "sequence":
            return Score(method.name, float(value))
        case "token":
            return Score(method.name, tokens=tuple(np.asarray(value).tolist()))
    pairs = zip(parts, np.asarray(value).tolist(), strict=True)
    return Score(method.name, claims=tuple(replace(one, value=number) for one, number in pairs))


def _not_finite(method: Method, trace: TokenTrace) -> Score:
    known = (trace.logprob, trace.entropy, trace.mean_logprob, trace.root_sum)
    if not all(np.isfinite(one).all() for one in known if one is not None):
        return Score(method.name, reason="the model's distribution is not finite")
    return Score(method.name, reason="the method's value is not finite for this answer")


async def add_evidence_scores(
    result: Result,
    backend: MeteredBackend,
    request: Request,
    methods: Iterable[str],
    options: MethodOptions | None = None,
) -> Result:
    """Return the result with the scores of all methods that need more than a trace.

    All of them gather at the same time, and share what several need. A method that fails has the
    reason in the place of its scores. The usage is what the backend counted meanwhile, and the
    seconds that it took.
    """
    wanted = {name: method for name in methods if (method := find_method(name)).gather}
    alive = [
        i
        for i, one in enumerate(result.candidates)
        if one.token_ids and not one.error and not one.trace.damage
    ]
    if not wanted:
        return result
    if not alive:
        return _with_scores(result, wanted, {}, alive)
    options, distinct = options or MethodOptions(), list(dict.fromkeys(wanted.values()))
    candidates = [result.candidates[i] for i in alive]
    context = Context(backend, request, candidates, options, _joined(distinct, options))
    started, before = time.perf_counter(), backend.usage
    try:
        rows = await together([_gathered(context, method) for method in distinct])
    finally:
        await context.close()
    usage = replace(backend.usage - before, seconds=time.perf_counter() - started)
    scored = _with_scores(result, wanted, dict(zip(distinct, rows, strict=True)), alive)
    return replace(scored, usage=result.usage + usage)


def _joined(methods: Iterable[Method], options: MethodOptions) -> Inspection:
    """Return what all methods together need of the model's inside."""
    needs = [need for method in methods if (need := _inspection(method, options))]
    layers = dict.fromkeys(layer for need in needs for layer in need.hidden_layers)
    kinds = {need.attention for need in needs}
    return Inspection(
        tuple(layers), "maps" if "maps" in kinds else "bands" if "bands" in kinds else None
    )


def _inspection(method: Method, options: MethodOptions) -> Inspection | None:
    """Return what a method needs of the model's inside; nothing where its own code fails."""
    try:
        return method.inspection(options) if method.inspection else None
    except Exception as error:
        _failure(method, error)
        return None


async def _gathered(context: Context, method: Method) -> list[Score]:
    """Return the method's score of each candidate."""
    assert method.gather is not None
    try:
        values = await method.gather(context)
        parts = await _parts(context, method)
        traces = [one.trace for one in context.candidates]
        rows = zip(values, traces, parts, strict=True)
        scores = [_one_score(method, *row) for row in rows]
    except (Exception, asyncio.CancelledError) as error:
        if (task := asyncio.current_task()) and task.cancelling():
            raise  # the call was cancelled, not something of the method's own
        reason = reason_of(_failure(method, error))
        scores = [Score(method.name, reason=reason) for _ in context.candidates]
    source = _judge_name(method, context.options)
    return [replace(one, source=source) for one in scores]


def _judge_name(method: Method, options: MethodOptions) -> str | None:
    if method.judged_by is None:
        return None
    judge = getattr(options, method.judged_by)
    try:
        return str(judge.name)
    except Exception:  # a judge of the user's
        return type(judge).__name__


def _one_score(method: Method, value: Value, trace: TokenTrace, parts: Sequence[Claim]) -> Score:
    """Return the score of one candidate's value; one that is no number is its own reason."""
    try:
        return score_of_value(method, value, trace, parts)
    except Exception as error:  # a value of another package's method, and so anything
        return Score(method.name, reason=reason_of(_failure(method, error)))


def _failure(method: Method, error: BaseException) -> UncertaintyError:
    """Return why a method has no score: its own code must cost no other method's."""
    if isinstance(error, UncertaintyError):
        return error
    _log.warning("%s failed", method.name, exc_info=error)
    return EvidenceError(f"{method.name} failed: {type(error).__name__}: {error}")


async def _parts(context: Context, method: Method) -> Sequence[Sequence[Claim]]:
    if method.level != "claim":
        return [()] * len(context.candidates)
    return await context.of(claims)


def _with_scores(
    result: Result,
    wanted: Mapping[str, Method],
    scores: Mapping[Method, Sequence[Score]],
    alive: Sequence[int],
) -> Result:
    rows = [dict(row) for row in result.scores]
    for name, method in wanted.items():
        for row, one in zip(rows, result.candidates, strict=True):
            row[name] = Score(method.name, reason=one.trace.damage or NO_TOKENS)
        for i, score in zip(alive, scores.get(method, ()), strict=method in scores):
            rows[i][name] = score
    return replace(result, scores=tuple(rows))
