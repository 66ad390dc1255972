"""Learn then Test: how often an answer that is given is wrong.

That share need not rise with the threshold, so thresholds are tested, each with an exact binomial
p-value: how probable so few wrong answers among those answered would be, were the risk met just so.
They are tested from the strictest on in the order of the scores, which looks at no grade. The first
one is where half of the known scores lie below (or as many as a promise takes at least), and with
many questions a quarter, an eighth, ... too, among which delta is divided; a test that passes hands
its part of delta on to the next threshold, and one that fails ends it (the fallback procedure of
Wiens and Dmitrienko 2005, https://doi.org/10.1080/10543400500265660, of which fixed-sequence
testing with one start or several is a case). A single start at the most certain few would fail with
the first wrong answer among them.

Where the answers that the score is most certain of are the wrong ones, there is no threshold,
though a higher one might pass. The family-wise error is at most delta: exactly so where the risk
among the answered does not fall as the threshold rises. Elsewhere this rests on thresholds being
taken from the scores at hand, and is shown by simulation (`benchmarks.calibration`).
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from uq_llm_integrations.calibration.graded import Ranking
from uq_llm_integrations.calibration.guarantees import Guarantee, Threshold, percent
from uq_llm_integrations.optional_packages import optional_module
from uq_llm_integrations.records import Floats, Integers

EXTRA = "calibration"


def tested_threshold(
    scores: Floats, correct: Floats, guarantee: Guarantee, delta: float
) -> Threshold:
    """Return the highest graded score that passes its test; see `fit_threshold`."""
    questions, unknown = len(scores), int(np.isnan(scores).sum())
    ranking = Ranking.of(scores, correct).of_known
    passed = _last_passed(ranking, guarantee.risk, delta)
    if passed is not None:
        answered, wrong = int(ranking.answered[passed]), int(ranking.wrong_so_far[passed])
        value = float(ranking.values[passed])
        return Threshold(guarantee, value, questions, answered, wrong, unknown)
    best = _lowest_risk(ranking, delta)
    reason = guarantee.refusal(best, _why(guarantee.risk, delta, questions, unknown))
    return Threshold(guarantee, None, questions, unknown=unknown, reason=reason, best=best)


def answers_needed(risk: float, delta: float) -> int:
    """Return how many answers, all of them right, a promise takes at least.

    Example:
        >>> answers_needed(0.1, 0.05), answers_needed(0.05, 0.05), answers_needed(0.01, 0.05)
        (29, 59, 299)
    """
    return int(_needed(np.array([risk]), delta)[0])


def _needed(risks: Floats, delta: float) -> Integers:
    needed = np.ceil(np.round(np.log(delta) / np.log1p(-risks), 9))
    return np.asarray(needed, np.int64)


def _starts(ranking: Ranking, risks: Floats, delta: float) -> tuple[Integers, NDArray[np.bool_]]:
    """Return [R, J] where testing starts for each risk, and [R, J] whether there is such a start.

    Places among the distinct scores, the highest first. They depend on the scores and on what is
    promised, and not on the grades.
    """
    known = int(ranking.sizes.sum())
    needed = _needed(risks, delta)[:, None]
    shares = known / 2.0 ** np.arange(2, max(3, known.bit_length()))
    first = np.maximum(math.ceil(known / 2), needed)
    ranks = np.hstack([first, np.tile(np.ceil(shares).astype(np.int64), (len(risks), 1))])
    exists = np.hstack([first <= known, shares >= 2 * needed])
    places = np.searchsorted(ranking.answered, np.minimum(ranks, known))
    return places, exists & exists[:, :1]


def _last_passed(ranking: Ranking, risk: float, delta: float) -> int | None:
    """Return the place of the highest threshold that passes."""
    places, exists = _starts(ranking, np.array([risk]), delta)
    starts = places[exists][::-1].tolist()
    p_values = _p_values(ranking, np.arange(len(ranking.sizes)), np.array(risk))
    passed, level = None, 0.0
    for start, end in pairwise([*starts, len(p_values)]):
        level += delta / len(starts)
        failed = np.flatnonzero(p_values[start:end] > level)
        count = int(failed[0]) if len(failed) else end - start
        if count:
            passed = start + count - 1
        if len(failed):
            level = 0.0
    return passed


def _p_values(ranking: Ranking, places: Integers, risk: Floats) -> Floats:
    """Return for each threshold P(Binomial(answered, risk) <= wrong)."""
    binomial = optional_module("scipy.special", EXTRA).bdtr
    return np.asarray(binomial(ranking.wrong_so_far[places], ranking.answered[places], risk))


def _lowest_risk(ranking: Ranking, delta: float) -> float | None:
    """Return the lowest risk for which a threshold passes: to 1%, and below that to 0.1%."""
    if not len(ranking.sizes):
        return None
    percents = _passing(ranking, np.arange(10, 1000, 10) / 1000, delta)
    if percents is None:
        return None
    end = round(1000 * percents)
    return _passing(ranking, np.arange(end - 9, end + 1) / 1000, delta)


def _passing(ranking: Ranking, risks: Floats, delta: float) -> float | None:
    """Return the lowest of these risks for which a threshold passes.

    The first that passes is one at which testing starts, with what the starts there have of delta.
    """
    places, exists = _starts(ranking, risks, delta)
    here = (places[:, :, None] == places[:, None, :]) & exists[:, None, :]
    levels = delta * here.sum(2) / np.maximum(exists.sum(1, keepdims=True), 1)
    passes = (exists & (_p_values(ranking, places, risks[:, None]) <= levels)).any(1)
    return float(risks[np.argmax(passes)]) if passes.any() else None


def _why(risk: float, delta: float, questions: int, unknown: int) -> str:
    if questions == unknown:
        return "no graded question has a known score" if questions else "no question is graded"
    if (needed := answers_needed(risk, delta)) > questions - unknown:
        return (
            f"{percent(risk)} takes {needed} answers with a known score at least, all of them "
            f"right, and there are {questions - unknown}"
        )
    return "too many of the answers that the score is most certain of are wrong"
