"""Confidence: a score as the probability that the answer is right, learnt from graded answers.

Only what comes out of here is called confidence: of many answers of confidence 0.8 about 80% are
right, as long as questions come from where the graded ones came from. It promises nothing of single
answers; thresholds with guarantees are in `thresholds`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from uq_llm_integrations.calibration.graded import (
    Correct,
    Scores,
    as_correct,
    as_scores,
)
from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.optional_packages import optional_module
from uq_llm_integrations.records import Floats, Score

EXTRA = "calibration"

Kind = Literal["platt", "isotonic"]

MOST = 1e290
"""How large a score may be."""


class Scaling(PlainRecord):
    """What makes a confidence of a score; it never rises with the score."""

    def of(self, score: float | Score | None) -> float | None:
        """Return the confidence from 0 to 1, or None where the score is unknown."""
        value = float(self.of_all([score])[0])
        return None if math.isnan(value) else value

    def of_all(self, scores: Scores) -> Floats:
        """Return [N] the confidences of many scores, NaN where a score is unknown."""
        values = as_scores(scores)
        known = ~np.isnan(values)
        values[known] = self._of_known(values[known])
        return values

    def _of_known(self, scores: Floats) -> Floats:
        raise NotImplementedError


@dataclass(frozen=True)
class PlattScaling(Scaling):
    """A logistic curve: 1 / (1 + exp(slope * (score - center) - intercept)).

    Example:
        >>> PlattScaling(slope=2.0, center=1.0, intercept=0.0, questions=100).of(1.0)
        0.5
    """

    slope: float
    """At least 0; 0 where higher scores do not go with wrong answers: one confidence for all."""
    center: float
    intercept: float
    questions: int
    """How many graded questions it was fitted on."""
    kind: Literal["platt"] = "platt"

    def __post_init__(self) -> None:
        if not self.slope >= 0:
            raise ConfigurationError(f"slope is {self.slope!r}; allowed is 0 or more")

    def _of_known(self, scores: Floats) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):
            logits = self.intercept - self.slope * (scores - self.center)
        return np.asarray(0.5 + 0.5 * np.tanh(logits / 2))


@dataclass(frozen=True)
class IsotonicScaling(Scaling):
    """Lines between knots, the first confidence below them and the last one above.

    Example:
        >>> IsotonicScaling((0.0, 1.0), (0.9, 0.5), questions=100).of(0.5)
        0.7
    """

    scores: tuple[float, ...]
    """[K] ascending."""
    values: tuple[float, ...]
    """[K] confidences at these scores, none above the one before."""
    questions: int
    """How many graded questions it was fitted on."""
    kind: Literal["isotonic"] = "isotonic"

    def __post_init__(self) -> None:
        ascending = all(np.diff(self.scores) >= 0) and all(np.diff(self.values) <= 0)
        inside = all(0 <= one <= 1 for one in self.values)
        if not (self.scores and len(self.scores) == len(self.values) and ascending and inside):
            raise ConfigurationError(
                "an isotonic scaling has as many scores, ascending, as values from 1 down to 0"
            )

    def _of_known(self, scores: Floats) -> Floats:
        return np.interp(scores, self.scores, self.values)


AnyScaling = PlattScaling | IsotonicScaling


def fit_confidence(scores: Scores, correct: Correct, kind: Kind = "platt") -> AnyScaling:
    """Fit what makes a confidence of a score.

    'platt' (Platt 1999, with his targets) fits a logistic curve and is right for some hundreds of
    questions or fewer; 'isotonic' (Zadrozny and Elkan 2002, https://doi.org/10.1145/775047.775151)
    fits any falling curve and takes about a thousand. Neither reaches 0 or 1: of n questions,
    nothing is more certain than (n + 1) / (n + 2). Answers whose score is unknown are left out, and
    get no confidence. Raises ConfigurationError where the others are not both right and wrong.

    Example:
        >>> scores = np.arange(100) / 50
        >>> scaling = fit_confidence(scores, scores < 1)
        >>> scaling.of(0.1) > 0.9, scaling.of(1.9) < 0.1, scaling.of(None)
        (True, True, None)
    """
    if kind not in get_args(Kind):
        raise ConfigurationError(f"kind is {kind!r}; allowed are 'platt' and 'isotonic'")
    values = as_scores(scores)
    right = as_correct(correct, len(values))
    known = ~np.isnan(values)
    check_both_classes(right[known])
    fit = _platt if kind == "platt" else _isotonic
    return fit(values[known], right[known])


def scaling_from_dict(data: Mapping[str, Any]) -> AnyScaling:
    """Return the scaling that `to_dict` wrote; raises ConfigurationError for anything else."""
    kinds: Mapping[Any, type[AnyScaling]] = {"platt": PlattScaling, "isotonic": IsotonicScaling}
    found = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(found, str) or found not in kinds:
        raise ConfigurationError(f"kind is {found!r}; allowed are 'platt' and 'isotonic'")
    return kinds[found].from_dict(data)


def check_both_classes(correct: Floats) -> None:
    """Raise ConfigurationError unless some answers are right and some are wrong."""
    if not len(correct):
        raise ConfigurationError("there are no graded answers with a known score")
    if correct.all() or not correct.any():
        kind = "right" if correct.all() else "wrong"
        raise ConfigurationError(
            f"all {len(correct)} answers with a known score are {kind}; a confidence takes right "
            "and wrong ones"
        )


def _platt(scores: Floats, correct: Floats) -> PlattScaling:
    center, spread = standard(scores)
    right, wrong = float(correct.sum()), float(len(correct) - correct.sum())
    target = np.where(correct == 1, (right + 1) / (right + 2), 1 / (wrong + 2))
    slope, intercept = _logistic((center - scores) / spread, target)
    if slope <= 0:
        slope, intercept = 0.0, math.log(target.mean() / (1 - target.mean()))
    return PlattScaling(slope / spread, center, intercept, len(scores))


def _logistic(certainty: Floats, target: Floats) -> tuple[float, float]:
    """Return slope and intercept of the logistic curve that is nearest to the targets.

    A target between 0 and 1 is a right and a wrong answer that share its weight.
    """
    features = np.concatenate([certainty, certainty])[:, None]
    classes = np.repeat([1, 0], len(certainty))
    weights = np.concatenate([target, 1 - target])
    regression = optional_module("sklearn.linear_model", EXTRA).LogisticRegression
    # Nearly without a penalty: the targets alone keep the slope finite.
    fitted = regression(C=1e10, max_iter=1000, tol=1e-8).fit(features, classes, weights)
    return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])


def _isotonic(scores: Floats, correct: Floats) -> IsotonicScaling:
    count = len(scores)
    regression = optional_module("sklearn.isotonic", EXTRA).IsotonicRegression
    fitted = regression(
        increasing=False,
        out_of_bounds="clip",
        y_min=1 / (count + 2),
        y_max=(count + 1) / (count + 2),
    ).fit(scores, correct)
    knots, values = fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist()
    return IsotonicScaling(tuple(knots), tuple(values), count)


def standard(scores: Floats) -> tuple[float, float]:
    """Return mean and standard deviation, 1 where all are the same."""
    largest = float(np.abs(scores).max())
    if largest > MOST:
        raise ConfigurationError(f"a score is {largest:g}; allowed is at most {MOST:g}")
    if largest < 1 / MOST:
        return 0.0, 1.0
    scaled = scores / largest  # the squares of very large and small ones are no floats
    center, spread = float(scaled.mean()), float(scaled.std())
    return center * largest, spread * largest if spread > 1e-12 else 1.0
