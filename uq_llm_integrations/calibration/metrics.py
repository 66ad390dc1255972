"""How well scores tell right answers from wrong ones.

Every metric takes one score for each answer, higher where it is more uncertain, and `correct` with
whether it was right. What the data cannot tell is None with a reason, never a number. Unknown
scores are counted, and rank last; answers of the same score count as their average over all orders,
so that no metric depends on the order of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from uq_llm_integrations.calibration.graded import (
    Correct,
    Ranking,
    Scores,
    as_correct,
    as_scores,
    as_share,
)
from uq_llm_integrations.calibration.measured import Metric
from uq_llm_integrations.records import Floats


def auroc(scores: Scores, correct: Correct) -> Metric:
    """Return the probability that a wrong answer has a higher score than a right one.

    The area under the ROC curve of the score as a detector of wrong answers: 1 is perfect, 0.5 is
    chance. Equal scores count half. Raises ConfigurationError where `correct` has more than right
    and wrong.

    Example:
        >>> auroc([0.1, 0.4, 0.4, 2.0], [True, True, False, False]).value
        0.875
    """
    ranked = _Ranked.of("auroc", scores, correct, graded=False)
    if why := ranked.why_not_comparable:
        return ranked.metric(None, why)
    right = ranked.ranking.sums
    wrong = ranked.ranking.sizes - right
    below = np.cumsum(right) - right
    return ranked.metric(wrong @ (below + right / 2) / (wrong.sum() * right.sum()))


def prr(scores: Scores, correct: Correct, max_rejection: float = 0.5) -> Metric:
    """Return the prediction rejection ratio: 1 is an oracle, 0 is chance, below 0 is worse.

    (A - A_random) / (A_oracle - A_random), where A is the mean quality of the answers that are
    kept, averaged over rejecting from none of them up to the share `max_rejection`, as in
    lm-polygraph (https://arxiv.org/abs/2406.15627). A_random is the exact expectation, which is the
    mean quality. `correct` may be a quality from 0 to 1.

    Example:
        >>> prr([0.1, 0.2, 0.3, 0.4], [True, True, False, False], max_rejection=1).value
        1.0
    """
    share = as_share(max_rejection, "max_rejection", one=True)
    ranked = _Ranked.of(f"prr@{share:g}", scores, correct)
    if why := ranked.why_not_comparable:
        return ranked.metric(None, why)
    count = len(ranked.best_order)
    averaged = math.floor(round(share * count, 9))
    if averaged < 2:  # over keeping all and nothing else, in which no order is better
        return ranked.metric(None, f"of {count} answers a share of {share:g} is too few to reject")
    random = ranked.best_order.mean()
    oracle = _kept(ranked.best_order)[-averaged:].mean()
    reached = _kept(ranked.order)[-averaged:].mean()
    return ranked.metric((reached - random) / (oracle - random))


def aurc(scores: Scores, correct: Correct) -> Metric:
    """Return the area under the risk-coverage curve; lower is better.

    The mean over k = 1..N of the error rate among the k most certain answers (Geifman, Uziel and
    El-Yaniv 2019, https://arxiv.org/abs/1805.08206). `correct` may be a quality from 0 to 1.

    Example:
        >>> aurc([0.1, 0.2], [True, False]).value
        0.25
    """
    ranked = _Ranked.of("aurc", scores, correct)
    if not len(ranked.order):
        return ranked.metric(None, NO_ANSWERS)
    return ranked.metric((1 - _kept(ranked.order)).mean())


def eaurc(scores: Scores, correct: Correct) -> Metric:
    """Return the excess AURC: the AURC less that of a perfect order of the same answers.

    Geifman, Uziel and El-Yaniv 2019 (https://arxiv.org/abs/1805.08206), with the perfect order
    itself in place of its approximation. `correct` may be a quality from 0 to 1.

    Example:
        >>> eaurc([0.2, 0.1], [True, False]).value
        0.5
    """
    ranked = _Ranked.of("eaurc", scores, correct)
    if why := ranked.why_not_comparable:
        return ranked.metric(None, why)
    return ranked.metric(max(0.0, (_kept(ranked.best_order) - _kept(ranked.order)).mean()))


def selective_accuracy(scores: Scores, correct: Correct, coverage: float) -> Metric:
    """Return the mean quality of the most certain answers, which are the share `coverage` of all.

    Of N answers that is the first ceil(coverage * N).

    Example:
        >>> selective_accuracy([0.1, 0.2, 0.3, 0.4], [True, True, True, False], 0.75).value
        1.0
    """
    share = as_share(coverage, "coverage", one=True)
    ranked = _Ranked.of(f"accuracy@{share:g}", scores, correct)
    if not len(ranked.order):
        return ranked.metric(None, NO_ANSWERS)
    answered = math.ceil(round(share * len(ranked.order), 9))
    return ranked.metric(ranked.order[:answered].mean())


def risk_coverage(scores: Scores, correct: Correct) -> tuple[Floats, Floats]:
    """Return [N] coverages 1/N, 2/N, ... 1, and [N] the error rate among that many most certain.

    Example:
        >>> coverage, risk = risk_coverage([0.1, 0.2], [True, False])
        >>> risk.tolist()
        [0.0, 0.5]
    """
    risk = 1 - _kept(_Ranked.of("risk", scores, correct).order)
    return np.arange(1, len(risk) + 1) / max(len(risk), 1), risk


NO_ANSWERS = "there are no answers"


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Answers by their scores, and the metric that is made of them."""

    name: str
    ranking: Ranking
    best_order: Floats
    """[N] quality, the highest first."""
    unknown: int

    @classmethod
    def of(cls, name: str, scores: Scores, correct: Correct, *, graded: bool = True) -> _Ranked:
        values = as_scores(scores)
        quality = as_correct(correct, len(values), graded=graded)
        unknown = int(np.isnan(values).sum())
        return cls(name, Ranking.of(values, quality), -np.sort(-quality), unknown)

    @property
    def order(self) -> Floats:
        """[N] quality, the most certain first."""
        return self.ranking.averaged

    @property
    def why_not_comparable(self) -> str | None:
        """Why no order of these answers is better than another."""
        quality = self.best_order
        if not len(quality):
            return NO_ANSWERS
        if quality[0] != quality[-1]:
            return None
        names = {0.0: "wrong", 1.0: "right"}
        return f"all {len(quality)} answers are {names.get(quality[0], 'of the same quality')}"

    def metric(self, value: float | None, reason: str | None = None) -> Metric:
        value = None if value is None else float(value)
        return Metric(self.name, value, len(self.best_order), self.unknown, reason)


def _kept(quality: Floats) -> Floats:
    """Return [N] the mean quality of the first k, for each k."""
    return np.cumsum(quality) / np.arange(1, len(quality) + 1)
