"""How true a confidence is: whether of the answers at 80% about 80% are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uq_llm_integrations.calibration.graded import (
    Correct,
    Scores,
    as_confidence,
    as_correct,
    as_count,
)
from uq_llm_integrations.calibration.measured import Metric
from uq_llm_integrations.calibration.metrics import NO_ANSWERS
from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Floats, Integers


@dataclass(frozen=True)
class ReliabilityBin(PlainRecord):
    """Answers of like confidence: what was said of them, and what was true."""

    lower: float
    upper: float
    """Its ends: it has confidences above `lower`, in the first bin from it on, up to `upper`. With
    `equal_mass` these are the lowest and the highest confidence in it."""
    count: int
    confidence: float
    """The mean confidence."""
    accuracy: float
    """The share of the answers that was right."""


def reliability(
    confidence: Scores, correct: Correct, *, bins: int = 15, equal_mass: bool = False
) -> tuple[ReliabilityBin, ...]:
    """Return the bins of a reliability diagram that have answers, from the lowest confidence on.

    The bins have the same width, or with `equal_mass` about as many answers each; answers of one
    confidence are never parted. Raises ConfigurationError where a confidence is unknown.

    Example:
        >>> [one.accuracy for one in reliability([0.2, 0.9, 0.9], [False, True, False], bins=2)]
        [0.0, 0.5]
    """
    as_count(bins, "bins")
    values = as_confidence(confidence)
    right = as_correct(correct, len(values))
    if why := _why_none(values):
        raise ConfigurationError(why)
    group = _equal_mass_bins(values, bins) if equal_mass else _equal_width_bins(values, bins)
    return tuple(
        _bin(values[group == one], right[group == one], None if equal_mass else one / bins, bins)
        for one in np.unique(group).tolist()
    )


def ece(
    confidence: Scores, correct: Correct, *, bins: int = 15, equal_mass: bool = False
) -> Metric:
    """Return the expected calibration error: how far confidence is from accuracy, on average.

    The sum over the bins of `reliability` of |accuracy - mean confidence|, weighted by their
    answers (Naeini, Cooper and Hauskrecht 2015, https://doi.org/10.1609/aaai.v29i1.9602). It
    depends on the bins, which are part of its name: 15 of the same width unless said otherwise, as
    in torchmetrics; lm-polygraph takes 20, and uqlm 10.

    Example:
        >>> ece([0.75, 0.75, 0.75, 0.75], [True, True, True, False]).value
        0.0
    """
    name = f"ece, {as_count(bins, 'bins')} bins of the same {'mass' if equal_mass else 'width'}"
    values = as_confidence(confidence)
    right = as_correct(correct, len(values))
    if why := _why_none(values):
        return Metric(name, None, len(values), _unknown(values), why)
    found = reliability(values, right, bins=bins, equal_mass=equal_mass)
    gaps = sum(one.count * abs(one.accuracy - one.confidence) for one in found)
    return Metric(name, gaps / len(values), len(values))


def brier(confidence: Scores, correct: Correct) -> Metric:
    """Return the mean square of confidence less correctness; 0 at best.

    Brier 1950 (https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2). `correct` may be
    a quality from 0 to 1.

    Example:
        >>> brier([1.0, 0.5], [True, False]).value
        0.125
    """
    values = as_confidence(confidence)
    right = as_correct(correct, len(values), graded=True)
    if why := _why_none(values):
        return Metric("brier", None, len(values), _unknown(values), why)
    return Metric("brier", float(((values - right) ** 2).mean()), len(values))


def _unknown(values: Floats) -> int:
    return int(np.isnan(values).sum())


def _why_none(values: Floats) -> str | None:
    if not len(values):
        return NO_ANSWERS
    if unknown := _unknown(values):
        return f"the confidence of {unknown} of {len(values)} answers is unknown"
    return None


def _equal_width_bins(values: Floats, bins: int) -> Integers:
    edges = np.arange(bins + 1) / bins
    return np.maximum(np.searchsorted(edges, values, side="left") - 1, 0)


def _equal_mass_bins(values: Floats, bins: int) -> Integers:
    """Return the bin in which the middle of all answers of the same confidence lies."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - sizes / 2
    return np.asarray(np.floor(middle * bins / len(values)).astype(np.int64)[group])


def _bin(values: Floats, right: Floats, lower: float | None, bins: int) -> ReliabilityBin:
    ends = (values.min(), values.max()) if lower is None else (lower, lower + 1 / bins)
    low, high = map(float, ends)
    return ReliabilityBin(low, high, len(values), float(values.mean()), float(right.mean()))
