"""Several methods as one: a stack of their scores, fitted on graded answers of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uq_llm_integrations.calibration.confidence import (
    EXTRA,
    AnyScaling,
    Kind,
    check_both_classes,
    fit_confidence,
    standard,
)
from uq_llm_integrations.calibration.graded import (
    Correct,
    Scores,
    as_correct,
    as_count,
    as_scores,
    as_share,
)
from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.optional_packages import optional_module
from uq_llm_integrations.records import Floats, Integers, Score

MOST_DEVIATIONS = 5.0
"""How far from its mean a score counts, in standard deviations: no outlier decides alone."""


@dataclass(frozen=True)
class StackedMethod(PlainRecord):
    """What one method's score adds to the logit that the answer is wrong."""

    name: str
    center: float
    spread: float
    weight: float
    """For each standard deviation above the mean."""
    unknown: float | None
    """What an unknown score adds; None where none was unknown in the fit, so that nobody knows."""


@dataclass(frozen=True)
class Stack(PlainRecord):
    """Logistic regression over the scores of several methods.

    Example:
        stack.score({"entropy": 0.7, "maxprob": None})
    """

    methods: tuple[StackedMethod, ...]
    bias: float
    questions: int
    """How many graded questions it was fitted on."""

    def __post_init__(self) -> None:
        if not self.methods:
            raise ConfigurationError("methods is empty; wanted are those of one method or more")

    def score(self, scores: Mapping[str, float | Score | None]) -> float | None:
        """Return how uncertain the answer is, from 0 to 1; or None where that is unknown.

        It is unknown where no method's score is known, and where one is unknown of a method that
        had none unknown in the fit. Raises ConfigurationError where a method is missing.
        """
        value = float(self.scores({name: [one] for name, one in scores.items()})[0])
        return None if np.isnan(value) else value

    def scores(self, scores: Mapping[str, Scores]) -> Floats:
        """Return [N] the scores of many answers, NaN where one is unknown."""
        rows = _columns(scores, [one.name for one in self.methods])
        logits = self.bias + sum(
            _part(one, column) for one, column in zip(self.methods, rows, strict=True)
        )
        logits = np.where(np.isnan(rows).all(0), np.nan, logits)
        return np.asarray(0.5 + 0.5 * np.tanh(logits / 2))


@dataclass(frozen=True)
class StackFit(PlainRecord):
    """A stack, and its confidence, which was fitted on answers that the stack has not seen."""

    stack: Stack
    confidence: AnyScaling
    held_out: tuple[int, ...]
    """Which of the answers these are. A threshold of the stack's score is fitted on these alone, or
    on others: on the answers of the fit the stack looks better than it is."""

    def of(self, scores: Mapping[str, float | Score | None]) -> float | None:
        """Return the confidence of an answer from its scores, None where it is unknown."""
        return self.confidence.of(self.stack.score(scores))


def fit_stack(
    scores: Mapping[str, Scores],
    correct: Correct,
    *,
    fit_share: float = 0.5,
    kind: Kind = "platt",
    seed: int = 0,
) -> StackFit:
    """Fit a stack of several methods on one part of the answers, its confidence on the rest.

    `scores` has each method's scores of all answers. The share `fit_share` of the answers, with
    right and wrong ones in the mixture of the whole, is drawn with the seed. An unknown score
    counts as the method's mean and has a weight of its own. Raises ConfigurationError where a part
    has no right or no wrong answers.

    Example:
        >>> right = np.arange(200) % 3 > 0
        >>> fit = fit_stack({"one": np.arange(200) % 3, "other": np.arange(200) % 2}, right)
        >>> fit.of({"one": 0, "other": 1}) < 0.1 < 0.9 < fit.of({"one": 2, "other": 1})
        True
    """
    if not scores:
        raise ConfigurationError("scores is empty; wanted are those of one method or more")
    names = list(scores)
    rows = _columns(scores, names)
    right = as_correct(correct, rows.shape[1])
    fitted, held_out = _split(right, as_share(fit_share, "fit_share"), seed)
    stack = _fit(names, rows[:, fitted], right[fitted])
    held_scores = stack.scores(dict(zip(names, rows[:, held_out], strict=True)))
    confidence = fit_confidence(held_scores, right[held_out], kind)
    return StackFit(stack, confidence, tuple(held_out.tolist()))


def _columns(scores: Mapping[str, Scores], names: Sequence[str]) -> Floats:
    """Return [M, N] the scores of each method."""
    if missing := [name for name in names if name not in scores]:
        raise ConfigurationError(f"there are no scores of {', '.join(map(repr, missing))}")
    columns = [as_scores(scores[name], name) for name in names]
    if len({len(one) for one in columns}) > 1:
        counts = ", ".join(f"{name} {len(one)}" for name, one in zip(names, columns, strict=True))
        raise ConfigurationError(f"the methods have different numbers of scores: {counts}")
    return np.stack(columns)


def _part(method: StackedMethod, scores: Floats) -> Floats:
    """Return [N] what a method's scores add to the logit."""
    unknown = np.nan if method.unknown is None else method.unknown
    standardised = _standardised(scores, method.center, method.spread)
    return np.where(np.isnan(scores), unknown, method.weight * standardised)


def _standardised(scores: Floats, center: float, spread: float) -> Floats:
    with np.errstate(over="ignore"):
        return np.clip((scores - center) / spread, -MOST_DEVIATIONS, MOST_DEVIATIONS)


def _split(correct: Floats, share: float, seed: int) -> tuple[Integers, Integers]:
    """Return the answers of the fit and the others, both in the mixture of the whole."""
    rng = np.random.default_rng(as_count(seed, "seed", 0))
    inside = np.zeros(len(correct), dtype=bool)
    for label in (0, 1):
        of_class = rng.permutation(np.flatnonzero(correct == label))
        inside[of_class[: round(share * len(of_class))]] = True
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def _fit(names: Sequence[str], rows: Floats, correct: Floats) -> Stack:
    """Fit on answers of which some method's score is known."""
    known = ~np.isnan(rows).all(0)
    rows, correct = rows[:, known], correct[known]
    check_both_classes(correct)
    unknown = np.isnan(rows)
    scales = [_scale(row) for row in rows]
    filled = [_filled(row, *scale) for row, scale in zip(rows, scales, strict=True)]
    regression = optional_module("sklearn.linear_model", EXTRA).LogisticRegression(max_iter=1000)
    fitted = regression.fit(np.vstack([*filled, *unknown]).T, 1 - correct)
    weights, gaps = np.split(fitted.coef_[0], 2)
    methods = tuple(
        StackedMethod(name, *scale, float(weight), float(gap) if missing else None)
        for name, scale, weight, gap, missing in zip(
            names, scales, weights, gaps, [row.any() for row in unknown], strict=True
        )
    )
    return Stack(methods, float(fitted.intercept_[0]), len(correct))


def _scale(scores: Floats) -> tuple[float, float]:
    """Return mean and deviation of the known scores."""
    known = scores[~np.isnan(scores)]
    return standard(known) if len(known) else (0.0, 1.0)


def _filled(scores: Floats, center: float, spread: float) -> Floats:
    return np.nan_to_num(_standardised(scores, center, spread))
