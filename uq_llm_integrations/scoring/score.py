"""From candidates to scores, with lm-polygraph's traps closed.

lm-polygraph returns NaN or 0.0, which reads as most certain, for an empty text and for a NaN that
it was given, and its token-level estimators drop the last token, which they take for the end of
text. Here the first two have no value but a reason, and every token keeps its score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from uq_llm_integrations.errors import UncertaintyError
from uq_llm_integrations.records import Candidate, Floats, Score, TokenTrace
from uq_llm_integrations.scoring import statistics
from uq_llm_integrations.scoring.method import Method
from uq_llm_integrations.scoring.methods import find_method
from uq_llm_integrations.scoring.polygraph import load_estimator


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
    with np.errstate(all="ignore"):  # what is not finite becomes a reason
        if method.own is None:
            return _estimate(method, statistics.of_evidence(candidate.trace, gathered))
        try:
            value = method.own(candidate, gathered)
        except UncertaintyError as error:
            return Score(method.name, reason=str(error))
    if value is None:
        return Score(method.name, reason="the text says nothing of the kind")
    return _from_token_values(method, np.atleast_1d(value))


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
        return _from_token_values(method, method.exact(trace))
    if method.bounds is None or trace.rank is None:
        return Score(method.name, reason=f"{trace.why_inexact}; no bound follows from the top k")
    ends = (method.sign * float(end.mean()) for end in method.bounds(trace))
    lower, upper = sorted(ends)
    return Score(method.name, None, trace.why_inexact, lower, upper)


_PER_TOKEN = {"greedy_log_likelihoods", "greedy_lm_log_likelihoods", "entropy"}


def _estimate(method: Method, stats: dict[str, list[Any]]) -> Score:
    estimator = load_estimator(method.estimator, **method.options)
    if method.level == "sequence":
        return _from_token_values(method, np.atleast_1d(estimator(stats)[0]))
    # The estimator drops the last entry of each text: give it one to drop.
    padded = {
        name: [np.append(rows[0], np.nan)] for name, rows in stats.items() if name in _PER_TOKEN
    }
    values = method.sign * np.hstack(estimator(padded)).astype(np.float64)
    if not np.isfinite(values).all():
        return _not_finite(method)
    return Score(method.name, tokens=tuple(values.tolist()))


def _from_token_values(method: Method, values: Floats) -> Score:
    value = method.sign * float(np.mean(values))
    return Score(method.name, value) if np.isfinite(value) else _not_finite(method)


def _not_finite(method: Method) -> Score:
    return Score(method.name, reason="the model's distribution is not finite at some token")
