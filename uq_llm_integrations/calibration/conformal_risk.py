"""Conformal risk control: how often a wrong answer is given, among all questions.

The loss of a question is 1 where it is answered, and wrongly. It does not fall as the threshold
rises, so the highest threshold with (n * mean loss + 1) / (n + 1) <= risk keeps the expected loss
of the next question at or below the risk (https://arxiv.org/abs/2208.02814, theorem 1).
"""

from __future__ import annotations

import math

import numpy as np

from uq_llm_integrations.calibration.graded import Ranking
from uq_llm_integrations.calibration.guarantees import Guarantee, Threshold, percent
from uq_llm_integrations.records import Floats


def conformal_threshold(scores: Floats, correct: Floats, guarantee: Guarantee) -> Threshold:
    """Return the highest graded score up to which the bound holds; see `fit_threshold`."""
    questions, unknown = len(scores), int(np.isnan(scores).sum())
    ranking = Ranking.of(scores, correct).of_known
    bounds = (ranking.wrong_so_far + 1) / (questions + 1)
    # A bound that is the risk is written in floats as a little more or less.
    kept = int(np.searchsorted(bounds, guarantee.risk + 1e-12, side="right"))
    if kept:
        answered, wrong = ranking.answered[kept - 1], ranking.wrong_so_far[kept - 1]
        value = float(ranking.values[kept - 1])
        return Threshold(guarantee, value, questions, int(answered), int(wrong), unknown)
    best = _rounded_up(float(bounds[0])) if len(bounds) else None
    reason = guarantee.refusal(best, _why(guarantee.risk, questions, unknown, bounds))
    return Threshold(guarantee, None, questions, unknown=unknown, reason=reason, best=best)


def _rounded_up(risk: float) -> float | None:
    """Return a risk in steps of 0.1%, or None where it promises nothing."""
    thousandths = math.ceil(round(1000 * risk, 9))
    return thousandths / 1000 if thousandths < 1000 else None


def _why(risk: float, questions: int, unknown: int, bounds: Floats) -> str:
    if questions == unknown:
        return "no graded question has a known score" if questions else "no question is graded"
    if 1 / (questions + 1) > risk:
        needed = math.ceil(round(1 / risk - 1, 9))
        return (
            f"{percent(risk)} takes {needed} graded questions at least, and there are {questions}"
        )
    return "too many of the answers that the score is most certain of are wrong"
