"""Whether thresholds keep what they promise, over 1,000 calibration sets from known populations.

Each population is 20,000 scored and graded answers; calibration sets are drawn from it with
replacement, and what a threshold does to the whole population is its true risk and coverage. The
promise is at most 10% wrong: among the answers with 95% probability (Learn then Test), or among all
questions on average (conformal risk control). Beside it stand a naive threshold, the highest one
with at most 10% wrong among the answered of the calibration set, and the oracle, the highest one
that has at most 10% wrong in the population.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import conclude
from uq_llm_integrations.calibration import fit_threshold

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RISK, DELTA, SPLITS, SIZE = 0.1, 0.05, 1000, 20_000
COUNTS = (30, 100, 500, 2000)
TOLERANCE = 3 * (DELTA * (1 - DELTA) / SPLITS) ** 0.5
"""Three standard deviations of the share of 1,000 sets that break a promise of 95%."""


@dataclass(eq=False)
class Population:
    """Scored and graded answers, as the whole of what there is to draw from."""

    scores: Floats
    """[N] NaN where unknown."""
    right: Flags

    @cached_property
    def _outcomes(self) -> tuple[Floats, Floats, Floats]:
        """The known scores, ascending; the shares answered, and answered wrongly, up to each."""
        order = np.argsort(self.scores)[: np.isfinite(self.scores).sum()]
        answered = np.arange(1, len(order) + 1) / len(self.scores)
        return self.scores[order], answered, np.cumsum(~self.right[order]) / len(self.scores)

    def at(self, threshold: float | None) -> tuple[float, float]:
        """Return the share that is answered and the share that is answered wrongly."""
        scores, answered, wrong = self._outcomes
        count = 0 if threshold is None else int(np.searchsorted(scores, threshold, side="right"))
        return (float(answered[count - 1]), float(wrong[count - 1])) if count else (0.0, 0.0)

    def breaks(self, threshold: float | None, risk: float) -> bool:
        """Return whether more of the answers that are given are wrong than the share `risk`."""
        answered, wrong = self.at(threshold)
        return wrong > risk * answered

    def splits(self, count: int, splits: int = SPLITS) -> Iterator[tuple[Floats, Flags]]:
        """Draw so many calibration sets of `count` answers."""
        rng = np.random.default_rng(count)
        for _ in range(splits):
            rows = rng.integers(len(self.scores), size=count)
            yield self.scores[rows], self.right[rows]


def population(kind: str) -> Population:
    """Make a population of a kind in `KINDS`."""
    rng = np.random.default_rng(7)
    scores, wrong_probability = KINDS[kind](rng)
    return Population(scores, rng.random(SIZE) >= wrong_probability)


def _logistic(rng: np.random.Generator, middle: float) -> tuple[Floats, Floats]:
    scores = rng.normal(size=SIZE)
    return scores, 1 / (1 + np.exp(-2.5 * (scores - middle)))


def _tied(rng: np.random.Generator) -> tuple[Floats, Floats]:
    scores = rng.integers(1, 6, SIZE).astype(float)
    return scores, np.array([0.02, 0.06, 0.15, 0.4, 0.7])[scores.astype(int) - 1]


def _unknown(rng: np.random.Generator) -> tuple[Floats, Floats]:
    scores, wrong = _logistic(rng, 0.6)
    return np.where(rng.random(SIZE) < 0.2, np.nan, scores), wrong


def _overconfident(rng: np.random.Generator, levels: int | None = None) -> tuple[Floats, Floats]:
    """The answers that it is most certain of are wrong more often than the next ones."""
    scores = rng.random(SIZE)
    if levels:
        scores = np.ceil(scores * levels) / levels
    return scores, np.select([scores <= 0.2, scores <= 0.6], [0.25, 0.02], 0.4)


KINDS: Mapping[str, Callable[[np.random.Generator], tuple[Floats, Floats]]] = {
    "smooth": lambda rng: _logistic(rng, 0.6),
    "five values": _tied,
    "few wrong": lambda rng: _logistic(rng, 2.2),
    "most wrong": lambda rng: _logistic(rng, -1.0),
    "a fifth unknown": _unknown,
    "useless": lambda rng: (rng.normal(size=SIZE), np.full(SIZE, 0.105)),
    "overconfident": _overconfident,
    "overconfident, ten values": lambda rng: _overconfident(rng, 10),
}


def naive_threshold(scores: Floats, right: Flags, risk: float = RISK) -> float | None:
    """Return the highest score up to which at most the share `risk` of these answers is wrong."""
    order = np.argsort(scores)[: np.isfinite(scores).sum()]
    risks = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    ends = np.append(np.diff(scores[order]) > 0, True)[: len(order)]
    kept = np.flatnonzero((risks <= risk) & ends)
    return float(scores[order][kept[-1]]) if len(kept) else None


def tested_threshold(scores: Floats, right: Flags, risk: float) -> float | None:
    """Return the threshold of Learn then Test."""
    return fit_threshold(scores, right, risk=risk, delta=DELTA).value


def conformal_threshold(scores: Floats, right: Flags, risk: float) -> float | None:
    """Return the threshold of conformal risk control."""
    return fit_threshold(scores, right, risk=risk, among="all").value


THRESHOLDS: Mapping[str, Callable[[Floats, Flags, float], float | None]] = {
    "learn then test": tested_threshold,
    "conformal": conformal_threshold,
    "naive": naive_threshold,
}


def measured(
    people: Population, count: int, name: str, *, risk: float = RISK, splits: int = SPLITS
) -> dict[str, float]:
    """Return what thresholds from calibration sets of `count` answers do to the population.

    On average over the sets; of 'oracle', what the threshold from the whole population does.
    """
    if name == "oracle":
        thresholds = [naive_threshold(people.scores, people.right, risk)]
    else:
        thresholds = [THRESHOLDS[name](*one, risk) for one in people.splits(count, splits)]
    answered, wrong = np.array([people.at(one) for one in thresholds]).T
    return {
        "broken": float(np.mean([people.breaks(one, risk) for one in thresholds])),
        "coverage": float(answered.mean()),
        "wrong of all": float(wrong.mean()),
        "deviation": float(wrong.std()),
        "no threshold": float((answered == 0).mean()),
    }


def main() -> None:
    """Measure and conclude."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for kind in KINDS:
        people = population(kind)
        for count in COUNTS:
            found = {name: measured(people, count, name) for name in [*THRESHOLDS, "oracle"]}
            figures[f"{kind}, {count}"] = found
            shown = ", ".join(
                f"{name} {one['broken']:.3f} broken {one['coverage']:.2f} answered"
                for name, one in found.items()
            )
            print(f"{kind}, {count}: {shown}", flush=True)
    broken = max(one["learn then test"]["broken"] for one in figures.values())
    wrong = max(one["conformal"]["wrong of all"] for one in figures.values())
    reached = figures["smooth, 2000"]
    shares = reached["learn then test"]["coverage"] / reached["oracle"]["coverage"]
    goals = {
        "promise kept among the answered, worst case": (1 - DELTA - TOLERANCE, 1 - broken),
        "not answered wrongly, worst case": (1 - RISK - 0.001, 1 - wrong),
        "coverage against the oracle's, smooth, 2000": (0.8, shares),
    }
    conclude("calibration", figures, goals)


if __name__ == "__main__":
    main()
