"""Thresholds of a score below which the answers are wrong no more often than promised.

Among the answered questions, the promise is kept by Learn then Test (Angelopoulos and others 2021,
https://arxiv.org/abs/2110.01052); among all questions, by conformal risk control (Angelopoulos and
others 2022, https://arxiv.org/abs/2208.02814). Both need graded questions that come from where
later ones come from, and no model of the scores.
"""

from __future__ import annotations

from collections.abc import Iterable

from uq_llm_integrations.calibration.conformal_risk import conformal_threshold
from uq_llm_integrations.calibration.graded import (
    Correct,
    Scores,
    as_correct,
    as_labels,
    as_scores,
    as_share,
)
from uq_llm_integrations.calibration.guarantees import (
    Among,
    GroupThresholds,
    Guarantee,
    Threshold,
)
from uq_llm_integrations.calibration.learn_then_test import tested_threshold
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Floats


def fit_threshold(
    scores: Scores,
    correct: Correct,
    *,
    risk: float,
    among: Among = "answered",
    delta: float = 0.05,
) -> Threshold:
    """Return the highest threshold of a score that keeps the wrong answers below `risk`.

    With `among="answered"`, at most the share `risk` of what is answered is wrong, except with
    probability `delta` over the graded questions. With `among="all"`, at most the share `risk` of
    all questions gets a wrong answer, on average over sets of graded questions; `delta` has no part
    in it. The graded questions must be others than those that the score was made with, and `risk`
    must be chosen before they are looked at. Where they are too few, or the score too poor, there
    is no threshold: `reason` says what could be promised at best.

    Raises ConfigurationError for a risk or delta that is not between 0 and 1, for a risk below
    1e-9, and for questions
    that are not graded.

    Example:
        >>> scores = [i / 100 for i in range(200)]
        >>> threshold = fit_threshold(scores, [one < 1.2 for one in scores], risk=0.1)
        >>> threshold.value, threshold.coverage
        (1.25, 0.63)
    """
    values = as_scores(scores)
    right = as_correct(correct, len(values))
    return _fit(values, right, _guarantee(risk, among, delta))


def fit_group_thresholds(
    scores: Scores,
    correct: Correct,
    groups: Iterable[object],
    *,
    risk: float,
    among: Among = "answered",
    delta: float = 0.05,
    simultaneous: bool = False,
) -> GroupThresholds:
    """Return a threshold for each group of questions, fitted on its questions alone.

    So the promise holds in each group, a rare one too, and not only on the whole. A group whose
    questions are too few has no threshold. `groups` names each question's group: texts, whole
    numbers or True and False, each known by its text. With `simultaneous`, delta is divided among
    the groups, so that the promise holds in all of them at once with probability 1 - `delta`.

    Example:
        >>> scores, groups = [i / 100 for i in range(400)], ["law", "art"] * 200
        >>> right = [one < 3 for one in scores]
        >>> fitted = fit_group_thresholds(scores, right, groups, risk=0.1)
        >>> fitted.accepts(2.5, "law"), fitted.accepts(2.5, "chemistry")
        (True, False)
    """
    values = as_scores(scores)
    right = as_correct(correct, len(values))
    names = as_labels(groups, len(values))
    if not len(values):
        raise ConfigurationError("there are no graded questions, and so no groups")
    distinct = sorted(set(names.tolist()))
    level = as_share(delta, "delta") / (len(distinct) if simultaneous else 1)
    guarantee = _guarantee(risk, among, level)
    return GroupThresholds(
        {name: _fit(values[names == name], right[names == name], guarantee) for name in distinct},
        simultaneous,
    )


def _guarantee(risk: float, among: Among, delta: float) -> Guarantee:
    return Guarantee(risk, among, None if among == "all" else delta)


def _fit(scores: Floats, correct: Floats, guarantee: Guarantee) -> Threshold:
    if guarantee.delta is None:
        return conformal_threshold(scores, correct, guarantee)
    return tested_threshold(scores, correct, guarantee, guarantee.delta)
