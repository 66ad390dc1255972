"""Which method to take: the cheapest of those that the data cannot tell from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from uq_llm_integrations.calibration.bootstrap import Measure, bootstrap, bootstrap_difference
from uq_llm_integrations.calibration.graded import as_scores
from uq_llm_integrations.calibration.measured import Metric
from uq_llm_integrations.calibration.metrics import auroc, prr
from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError, described
from uq_llm_integrations.evaluation.items import Evaluation
from uq_llm_integrations.evaluation.summaries import Cost, cost_of

MetricName = Literal["auroc", "prr"]

_MEASURES: Mapping[str, tuple[Measure, float]] = {"auroc": (auroc, 0.5), "prr": (prr, 0.0)}
"""Name -> metric, higher is better, and what chance reaches."""

FEW = 30
"""With fewer right, or fewer wrong, answers than this, intervals are wide and rough."""


@dataclass(frozen=True)
class Recommendation(PlainRecord):
    """The method to take, and in words why, and how sure that is."""

    method: str | None
    """None where the data says nothing."""
    best: str | None
    """The method with the highest value."""
    metric: MetricName
    difference: Metric | None
    """How much higher the best one's value is than that of `method`, with its interval."""
    is_sure: bool
    """Whether there are enough answers, and the best is better than chance."""
    words: str


def recommend(
    evaluation: Evaluation,
    metric: MetricName = "auroc",
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Recommendation:
    """Return the cheapest method within the noise of the best.

    Within the noise is a method where the interval of how much better the best is, by the paired
    bootstrap over questions, holds 0. The cheapest costs the fewest tokens, then passes; among
    equals, the one of the higher value. The best of many methods is partly lucky: see whether it
    holds with other questions.

    Example:
        print(recommend(Evaluation.load("evaluation.jsonl")).words)
    """
    if metric not in _MEASURES:
        raise ConfigurationError(f"metric is {described(metric)}; allowed are 'auroc' and 'prr'")
    measure, chance = _MEASURES[metric]
    correct = evaluation.correct
    scores = {name: as_scores(evaluation.scores(name)) for name in evaluation.setup.methods}
    values = {name: measure(one, np.array(correct, float)) for name, one in scores.items()}
    known = {name: one.value for name, one in values.items() if one.value is not None}
    if not known:
        why = next(iter(values.values())).reason
        words = f"Nothing can be recommended: {why}."
        return Recommendation(None, None, metric, None, is_sure=False, words=words)
    best = max(known, key=lambda name: known[name])

    def lead(name: str) -> Metric:
        """Return how much better the best is."""
        one, other = scores[best], scores[name]
        return bootstrap_difference(
            measure, one, other, correct, level=level, resamples=resamples, seed=seed
        )

    leads = {name: lead(name) for name in known}
    near = [name for name, one in leads.items() if _is_noise(one)]
    method = min(near, key=lambda name: (*_order(cost_of(evaluation, name)), -known[name]))
    own = bootstrap(measure, scores[best], correct, level=level, resamples=resamples, seed=seed)
    doubts = _doubts(own, chance, correct)
    reasons = [_choice(method, best, metric, known, near, evaluation), *doubts]
    words = " ".join(reasons)
    return Recommendation(method, best, metric, leads[method], is_sure=not doubts, words=words)


def _is_noise(lead: Metric) -> bool:
    """Return whether the best may be no better; without an interval nothing says that it is."""
    return lead.interval is None or lead.interval.lower <= 0


def _order(cost: Cost | None) -> tuple[float, float]:
    """Return what methods are cheaper by; one whose cost is unknown comes last."""
    return (float("inf"), float("inf")) if cost is None else (cost.tokens, cost.passes)


def _choice(
    method: str,
    best: str,
    metric: str,
    values: Mapping[str, float],
    near: Sequence[str],
    evaluation: Evaluation,
) -> str:
    cost = cost_of(evaluation, method)
    price = "its cost was not measured" if cost is None else _price(cost)
    own = f"{method} ({metric} {values[method]:.3f}, {price})"
    if len(values) == 1:
        return f"Take {own}: there is no other."
    if method == best:
        return f"Take {own}: it has the highest value, and none that is as good is cheaper."
    which = "them" if len(near) == 2 else f"{len(near)} methods"
    return (
        f"Take {own}: {best} has the highest value ({values[best]:.3f}), but these answers cannot "
        f"tell {which} apart, and it is the cheapest."
    )


def _price(cost: Cost) -> str:
    if not cost.tokens and not cost.passes:
        return "costs nothing beside the answer"
    return f"costs {cost.tokens:.0f} tokens and {cost.seconds:.2f} s an answer beside it"


def _doubts(best: Metric, chance: float, correct: Sequence[bool]) -> list[str]:
    """Return why one should not rest on it, as sentences."""
    right, wrong = sum(correct), len(correct) - sum(correct)
    found = []
    if min(right, wrong) < FEW:
        found.append(
            f"This is little data: {right} answers are right and {wrong} wrong; ask until there "
            f"are {FEW} of each before you rest on it."
        )
    if best.interval is None:
        found.append(f"There is no interval: {best.no_interval}.")
    elif best.interval.lower <= chance:
        found.append("Even the best may be no better than chance.")
    return found
