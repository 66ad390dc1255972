"""Graded answers as arrays: their scores, and whether each was right. What cannot be is refused.

A score that is unknown (None, NaN or infinite) is NaN here. In every order it stands last, behind
the most uncertain of the known ones, together with all others that are unknown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uq_llm_integrations.errors import ConfigurationError, described
from uq_llm_integrations.records import Floats, Integers, Score

Scores = Iterable[float | Score | None] | ArrayLike
"""One a question: numbers, None, or `Score` records; higher is more uncertain."""

Correct = Iterable[bool | float] | ArrayLike
"""One a question: True or False; for some metrics also a quality from 0 to 1, as ROUGE is."""


def as_scores(scores: Scores, name: str = "scores") -> Floats:
    """Return [N] scores, NaN where one is unknown."""
    if isinstance(scores, np.ndarray) and scores.dtype.kind in "fiu":
        values = scores.astype(np.float64)
    else:
        values = np.array([_number(one, name, i) for i, one in enumerate(_listed(scores, name))])
    if values.ndim != 1:
        raise ConfigurationError(f"{name} must be one a question, not of shape {values.shape}")
    return np.where(np.isfinite(values), values, np.nan)


def as_correct(correct: Correct, count: int, *, graded: bool = False) -> Floats:
    """Return [N] 0 or 1, or with `graded` anything between; `count` is N."""
    if isinstance(correct, np.ndarray) and correct.dtype.kind in "bfiu" and correct.ndim == 1:
        values = correct.astype(np.float64)
    else:
        listed = _listed(correct, "correct")
        values = np.array([_number(one, "correct", i) for i, one in enumerate(listed)])
    if len(values) != count:
        raise ConfigurationError(f"there are {count} scores and {len(values)} in correct")
    sound = (values >= 0) & (values <= 1) if graded else (values == 0) | (values == 1)
    if not sound.all():
        place = int(np.argmin(sound))
        allowed = "a number from 0 to 1" if graded else "True or False"
        raise ConfigurationError(f"correct[{place}] is {values[place]}; allowed is {allowed}")
    return values


def as_confidence(confidence: Scores) -> Floats:
    """Return [N] confidences from 0 to 1, NaN where one is unknown."""
    values = as_scores(confidence, "confidence")
    wrong = (values < 0) | (values > 1)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ConfigurationError(f"confidence[{place}] is {values[place]}; allowed is 0 to 1")
    return values


def as_labels(labels: Iterable[object], count: int) -> NDArray[np.object_]:
    """Return [N] the texts of the questions' groups; `count` is N."""
    listed = _listed(labels, "groups")
    if len(listed) != count:
        raise ConfigurationError(f"there are {count} scores and {len(listed)} groups")
    for place, one in enumerate(listed):
        if not isinstance(one, str | int | np.integer | np.bool_):
            raise ConfigurationError(
                f"groups[{place}] is {described(one)}; "
                "allowed are texts, whole numbers, True and False"
            )
    return np.array([str(one) for one in listed], dtype=object)


def as_share(value: float, name: str, *, one: bool = False) -> float:
    """Return a number above 0 and below 1, or with `one` at most 1."""
    sound = isinstance(value, int | float | np.integer | np.floating) and not isinstance(
        value, bool
    )
    if not sound or not (0 < value < 1 or (one and value == 1)):
        most = "at most" if one else "below"
        raise ConfigurationError(f"{name} is {value!r}; allowed is above 0 and {most} 1")
    return float(value)


def as_count(value: int, name: str, least: int = 1) -> int:
    """Return a whole number of at least so much."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ConfigurationError(f"{name} is {value!r}; allowed is a whole number from {least}")
    return int(value)


def _listed(values: Iterable[object] | ArrayLike, name: str) -> list[object]:
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping | Set):
        with contextlib.suppress(TypeError):  # an array of no dimensions
            return list(values)
    raise ConfigurationError(f"{name} is {described(values)}; wanted is one value a question")


def _number(value: object, name: str, place: int) -> float:
    if isinstance(value, Score):
        value = value.value
    if value is None:
        return np.nan
    if isinstance(value, int | float | np.integer | np.floating | np.bool_) and np.ndim(value) == 0:
        try:
            return float(value)
        except (TypeError, OverflowError):
            pass
    raise ConfigurationError(f"{name}[{place}] is {described(value)}; allowed are numbers and None")


@dataclass(frozen=True, eq=False)
class Ranking:
    """Graded answers from the most certain to the most uncertain, those of one score together."""

    values: Floats
    """[G] the distinct scores, ascending; the last is NaN where some are unknown."""
    sizes: Integers
    """[G] how many answers have each."""
    sums: Floats
    """[G] the sum of their `correct`."""

    @classmethod
    def of(cls, scores: Floats, correct: Floats) -> Ranking:
        """Rank answers by their scores."""
        values, group = np.unique(scores, return_inverse=True)
        count = len(values)
        sizes = np.bincount(group, minlength=count).astype(np.int64)
        return cls(
            values, sizes, np.bincount(group, weights=correct, minlength=count).astype(float)
        )

    @property
    def averaged(self) -> Floats:
        """[N] what `correct` is on average at each place, over all orders within ties."""
        return np.repeat(self.sums / self.sizes, self.sizes)

    @property
    def of_known(self) -> Ranking:
        """The answers whose scores are known."""
        known = ~np.isnan(self.values)
        return Ranking(self.values[known], self.sizes[known], self.sums[known])

    @property
    def answered(self) -> Integers:
        """[G] how many answers have a score up to each."""
        return np.cumsum(self.sizes)

    @property
    def wrong_so_far(self) -> Integers:
        """[G] how many of these are wrong, where each is right or wrong."""
        return self.answered - np.rint(np.cumsum(self.sums)).astype(np.int64)
