"""From candidates to scores, with lm-polygraph's traps closed.

lm-polygraph returns NaN or 0.0, which reads as most certain, for an empty text and for a NaN that
it was given, and its token-level estimators drop the last token, which they take for the end of
text. Here the first two have no value but a reason, and every token keeps its score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from uq_llm_integrations.errors import UncertaintyError
from uq_llm_integrations.methods import statistics
from uq_llm_integrations.methods.base import Method
from uq_llm_integrations.methods.polygraph import Estimator, load_estimator
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.records import Candidate, Claim, Floats, Score, TokenTrace


def score_candidate(candidate: Candidate, methods: Iterable[str]) -> dict[str, Score]:
    """Return the candidate's scores by those of the names that read the trace alone."""
    found = {name: find_method(name) for name in methods}
    return {
        name: score_trace(candidate.trace, method)
        for name, method in found.items()
        if not method.evidence
    }


def score_trace(trace: TokenTrace, method: Method) -> Score:
    """Return one method's score of a trace; a score that cannot be known has a reason instead."""
    if not len(trace):
        return Score(method.name, reason="there are no tokens to score")
    match method.needs:
        case "logprob":
            score = _estimate(method, statistics.log_likelihoods(trace))
        case "entropy":
            score = _score_entropy(trace, method)
        case "distribution":
            score = _score_distribution(trace, method)
        case "evidence":
            raise AssertionError(f"{method.name} is not a method of the trace alone")
    return score


def score_evidence(candidate: Candidate, method: Method, gathered: Mapping[str, Any]) -> Score:
    """Return one method's score of a candidate, from what was gathered for it."""
    claims: Sequence[Claim] = gathered.get("claims", ())
    if method.level == "claim" and not claims:
        return Score(method.name, reason="the answer holds no claim")
    with np.errstate(all="ignore"):  # what is not finite becomes a reason
        if method.own is None:
            return _estimate(method, statistics.of_evidence(candidate, gathered), claims)
        try:
            value = method.own(candidate, gathered)
        except UncertaintyError as error:
            return Score(method.name, reason=str(error))
    if value is None:
        return Score(method.name, reason="the text says nothing of the kind")
    return _from_values(method, np.atleast_1d(value), claims)


def _score_entropy(trace: TokenTrace, method: Method) -> Score:
    if trace.entropy is not None:
        return _estimate(method, statistics.entropies(trace.entropy))
    if trace.entropy_lower is None or trace.entropy_upper is None:
        return Score(method.name, reason=trace.why_inexact)
    if method.level == "token":
        return Score(method.name, reason=f"{trace.why_inexact}; the trace holds bounds")
    lower = _estimate(method, statistics.entropies(trace.entropy_lower)).value
    upper = _estimate(method, statistics.entropies(trace.entropy_upper)).value
    return Score(method.name, None, trace.why_inexact, lower, upper)


def _score_distribution(trace: TokenTrace, method: Method) -> Score:
    if trace.top_logprobs is not None and trace.top_logprobs.shape[1] == trace.vocabulary_size:
        return _estimate(method, {"greedy_log_probs": [trace.top_logprobs]})
    if trace.is_exact:
        assert method.exact is not None
        return _from_values(method, method.exact(trace))
    if method.bounds is None or trace.rank is None:
        return Score(method.name, reason=f"{trace.why_inexact}; no bound follows from the top k")
    ends = (method.sign * float(end.mean()) for end in method.bounds(trace))
    lower, upper = sorted(ends)
    return Score(method.name, None, trace.why_inexact, lower, upper)


_PER_TOKEN = {"greedy_log_likelihoods", "greedy_lm_log_likelihoods", "entropy"}


def _estimate(method: Method, stats: dict[str, list[Any]], claims: Sequence[Claim] = ()) -> Score:
    try:
        estimator = load_estimator(method.estimator, **method.options)
        values = _values(method, estimator, stats)
    except Exception as error:
        if method.listed:
            raise
        # Nobody has looked at what this estimator does with what it is given.
        return Score(method.name, reason=f"lm-polygraph fails: {type(error).__name__}: {error}")
    return _from_values(method, values, claims)


def _values(method: Method, estimator: Estimator, stats: dict[str, list[Any]]) -> Floats:
    """Return one number, or one for each token or claim."""
    if method.level == "token" and method.listed:
        # The estimator drops the last entry of each text: give it one to drop.
        padded = {name: [np.append(stats[name][0], np.nan)] for name in stats.keys() & _PER_TOKEN}
        return np.hstack(estimator(padded)).astype(np.float64)
    given = estimator(stats)
    return np.atleast_1d(np.asarray(given if method.level == "token" else given[0], np.float64))


def _from_values(method: Method, values: Floats, claims: Sequence[Claim] = ()) -> Score:
    values = method.sign * (
        np.mean(values, keepdims=True) if method.level == "sequence" else values
    )
    if not np.isfinite(values).all():
        return _not_finite(method)
    numbers = values.tolist()
    match method.level:
        case "sequence":
            return Score(method.name, numbers[0])
        case "token":
            return Score(method.name, tokens=tuple(numbers))
    scored = (replace(claim, value=value) for claim, value in zip(claims, numbers, strict=True))
    return Score(method.name, claims=tuple(scored))


def _not_finite(method: Method) -> Score:
    return Score(method.name, reason="the model's distribution is not finite at some token")
