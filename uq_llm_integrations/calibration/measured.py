"""The value of a metric, with its interval, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from uq_llm_integrations.calibration.plain_records import PlainRecord


@dataclass(frozen=True)
class Interval(PlainRecord):
    """A percentile interval of the bootstrap over questions."""

    lower: float
    upper: float
    level: float
    """The share of such intervals that hold the true value, where there are enough questions."""
    resamples: int
    seed: int
    undefined: int = 0
    """Resamples in which the metric had no value; the interval is of the others."""


@dataclass(frozen=True)
class Metric(PlainRecord):
    """The value of a metric, or None and a reason."""

    name: str
    value: float | None
    count: int
    """How many answers it is of."""
    unknown: int = 0
    """How many of their scores are unknown."""
    reason: str | None = None
    """Why there is no value."""
    interval: Interval | None = None
    no_interval: str | None = None
    """Why `bootstrap` could give no interval."""
