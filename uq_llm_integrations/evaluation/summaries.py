"""What each method of an evaluation is worth, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from uq_llm_integrations.calibration.bootstrap import bootstrap
from uq_llm_integrations.calibration.calibration_file import Calibration, fit_calibration
from uq_llm_integrations.calibration.confidence import Kind
from uq_llm_integrations.calibration.guarantees import Among
from uq_llm_integrations.calibration.measured import Metric
from uq_llm_integrations.calibration.metrics import auroc, prr
from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.evaluation.items import Evaluation


@dataclass(frozen=True)
class Cost(PlainRecord):
    """What a method's score costs on average beside the answer itself, computed alone."""

    tokens: float
    """Tokens that the model read, without those in its cache, generated or scored."""
    passes: float
    """Passes of the model one after the other."""
    seconds: float
    """On the machine of the evaluation, with nothing else running."""
    answers: int
    """Of how many answers it is the average."""


COLUMNS = ("method", "AUROC", "PRR", "tokens", "passes", "seconds", "unknown")
"""What the cells of a `MethodSummary` are of."""


@dataclass(frozen=True)
class MethodSummary(PlainRecord):
    """How well a method tells right answers from wrong ones, with intervals, and its cost."""

    method: str
    auroc: Metric
    prr: Metric
    cost: Cost | None
    """None where it was not measured."""

    @property
    def unknown(self) -> int:
        """How many scores are unknown."""
        return self.auroc.unknown

    @property
    def cells(self) -> tuple[str, ...]:
        """What a table says of the method, in `COLUMNS`."""
        cost = self.cost
        costs = (
            ("?", "?", "?")
            if cost is None
            else (f"{cost.tokens:.0f}", f"{cost.passes:.1f}", f"{cost.seconds:.2f}")
        )
        return (self.method, _cell(self.auroc), _cell(self.prr), *costs, str(self.unknown))


def summaries(
    evaluation: Evaluation, *, resamples: int = 1000, seed: int = 0
) -> tuple[MethodSummary, ...]:
    """Return what each method is worth, the highest AUROC first.

    Intervals are of the bootstrap over questions, 95%. Answers whose grade is unknown are left out;
    unknown scores rank last.

    Example:
        for one in summaries(Evaluation.load("evaluation.jsonl")):
            print(one.method, one.auroc.value, one.cost)
    """
    found = [_summary(evaluation, name, resamples, seed) for name in evaluation.setup.methods]
    return tuple(sorted(found, key=lambda one: (-_value(one.auroc), one.method)))


def cost_of(evaluation: Evaluation, method: str) -> Cost | None:
    """Return what a method costs, None where it was not measured."""
    measured = [one.costs[method] for one in evaluation.items if one.costs and method in one.costs]
    if not measured:
        return None
    count = len(measured)
    computed = sum(
        one.prompt_tokens - one.cached_tokens + one.generated_tokens + one.scored_tokens
        for one in measured
    )
    passes = sum(one.forward_passes for one in measured)
    seconds = sum(one.seconds for one in measured)
    return Cost(computed / count, passes / count, seconds / count, count)


def calibration_of(
    evaluation: Evaluation,
    methods: Sequence[str],
    *,
    risk: float | None = None,
    among: Among = "answered",
    delta: float = 0.05,
    kind: Kind = "platt",
    by_group: bool = False,
    seed: int = 0,
) -> Calibration:
    """Return the calibration of one method, or of a stack of several, by the graded answers.

    The arguments are those of `fit_calibration`; `by_group` gives each group of questions a
    threshold of its own. What a method was chosen by is no ground for its guarantee: calibrate with
    other questions than those that chose it. Raises ConfigurationError where the answers are not
    both right and wrong, and with `by_group` where a question has no group.

    Example:
        calibration_of(Evaluation.load("evaluation.jsonl"), ["entropy"], risk=0.1).save("c.json")
    """
    if isinstance(methods, str) or not methods:
        raise ConfigurationError(f"methods is {methods!r}; wanted is a list of one or more names")
    groups = [one.question.group for one in evaluation.graded] if by_group else None
    if groups and None in groups:
        raise ConfigurationError(
            f"{groups.count(None)} of {len(groups)} graded questions have no group"
        )
    return fit_calibration(
        {name: evaluation.scores(name) for name in methods},
        evaluation.correct,
        origin=evaluation.setup.origin,
        groups=groups,
        risk=risk,
        among=among,
        delta=delta,
        kind=kind,
        seed=seed,
    )


def _summary(evaluation: Evaluation, method: str, resamples: int, seed: int) -> MethodSummary:
    scores, correct = evaluation.scores(method), evaluation.correct
    measured = (
        bootstrap(measure, scores, correct, resamples=resamples, seed=seed)
        for measure in (auroc, prr)
    )
    areas, ratios = measured
    return MethodSummary(method, areas, ratios, cost_of(evaluation, method))


def _value(metric: Metric) -> float:
    return -1.0 if metric.value is None else metric.value


def _cell(metric: Metric) -> str:
    if metric.value is None:
        return "unknown"
    ends = metric.interval
    return f"{metric.value:.3f}" + (f" ({ends.lower:.3f} to {ends.upper:.3f})" if ends else "")
