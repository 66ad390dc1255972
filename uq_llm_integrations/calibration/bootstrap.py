"""Intervals of metrics by the bootstrap over questions (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from uq_llm_integrations.calibration.graded import (
    Correct,
    Scores,
    as_correct,
    as_count,
    as_scores,
    as_share,
)
from uq_llm_integrations.calibration.measured import Interval, Metric
from uq_llm_integrations.records import Floats, Integers

Measure = Callable[[Floats, Floats], Metric]
"""A metric of scores (or confidences) and correctness, such as `auroc`; by `functools.partial` one
with arguments, such as `partial(prr, max_rejection=1)`."""


def bootstrap(
    measure: Measure,
    scores: Scores,
    correct: Correct,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Metric:
    """Return a metric with its percentile interval over questions drawn with replacement.

    Where the metric has no value in more than 1 - `level` of the resamples, as where nearly all
    answers are right, there is no interval, and `no_interval` says why. The same seed draws the
    same questions for every score.

    Example:
        >>> from uq_llm_integrations.calibration import auroc
        >>> found = bootstrap(auroc, np.arange(100), np.arange(100) < 50)
        >>> found.value, found.interval.lower
        (1.0, 1.0)
    """
    values, right = _arrays(scores, correct)
    found = measure(values, right)
    if found.value is None:
        return replace(found, no_interval=found.reason)
    drawn = (
        measure(values[rows], right[rows]).value for rows in _rows(len(values), resamples, seed)
    )
    return _with_interval(found, drawn, level, resamples, seed)


def bootstrap_difference(
    measure: Measure,
    scores: Scores,
    others: Scores,
    correct: Correct,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Metric:
    """Return how much higher a metric is for `scores` than for `others`, on the same questions.

    Both are measured on the same resamples, so that what is hard for both cancels: an interval
    without 0 says that one of them is better.

    Example:
        >>> from uq_llm_integrations.calibration import auroc
        >>> right = np.arange(100) < 50
        >>> bootstrap_difference(auroc, np.arange(100), -np.arange(100), right).value
        1.0
    """
    values, right = _arrays(scores, correct)
    other_values, _ = _arrays(others, right)

    def difference(rows: Integers | slice) -> Metric:
        one = measure(values[rows], right[rows])
        other = measure(other_values[rows], right[rows])
        why = one.reason or other.reason
        value = None if one.value is None or other.value is None else one.value - other.value
        unknown = one.unknown + other.unknown
        return Metric(f"difference of {one.name}", value, one.count, unknown, why)

    found = difference(slice(None))
    if found.value is None:
        return replace(found, no_interval=found.reason)
    drawn = (difference(rows).value for rows in _rows(len(values), resamples, seed))
    return _with_interval(found, drawn, level, resamples, seed)


def _arrays(scores: Scores, correct: Correct) -> tuple[Floats, Floats]:
    values = as_scores(scores)
    return values, as_correct(correct, len(values), graded=True)


def _rows(count: int, resamples: int, seed: int) -> Iterator[Integers]:
    rng = np.random.default_rng(as_count(seed, "seed", 0))
    for _ in range(as_count(resamples, "resamples")):
        yield rng.integers(count, size=count)


def _with_interval(
    found: Metric, drawn: Iterator[float | None], level: float, resamples: int, seed: int
) -> Metric:
    share = as_share(level, "level")
    values = [one for one in drawn if one is not None]
    undefined = resamples - len(values)
    if undefined > (1 - share) * resamples:
        why = f"{undefined} of {resamples} resamples have no value: there are too few answers"
        return replace(found, no_interval=why)
    lower, upper = np.quantile(values, [(1 - share) / 2, (1 + share) / 2]).tolist()
    return replace(found, interval=Interval(lower, upper, share, resamples, int(seed), undefined))
