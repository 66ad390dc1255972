"""What an evaluation looks like: charts, each with words that say what is seen in it.

Lines differ in their dashes and bars in their hatching, too: colours alone say nothing. They are
those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which the colour-blind tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from uq_llm_integrations.calibration.confidence import fit_confidence
from uq_llm_integrations.calibration.metrics import risk_coverage
from uq_llm_integrations.calibration.reliability import ReliabilityBin, ece, reliability
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.evaluation.items import Evaluation
from uq_llm_integrations.evaluation.summaries import MethodSummary
from uq_llm_integrations.records import Floats

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
BINS = 10
MOST_METHODS = 12

Draw = Callable[[Any], None]
"""What draws on an `Axes` of matplotlib."""


@dataclass(frozen=True)
class Chart:
    """A picture, and the words for it."""

    name: str
    title: str
    words: str
    draw: Draw


def charts_of(
    evaluation: Evaluation, rows: Sequence[MethodSummary], method: str | None
) -> list[Chart]:
    """Return the charts that the graded answers give; `method` is the one that is looked into.

    `rows` has all methods, the best first. Without right and wrong answers there are none.
    """
    correct = evaluation.correct
    if method is None or len(set(correct)) < 2:
        return []
    found = [
        _risk_coverage(evaluation, [one.method for one in rows[: len(COLOURS)]]),
        _reliability(evaluation, method),
        _histogram(evaluation, method),
        _methods(rows[:MOST_METHODS]),
    ]
    return [one for one in found if one is not None]


def _risk_coverage(evaluation: Evaluation, methods: Sequence[str]) -> Chart:
    correct = evaluation.correct
    curves = [risk_coverage(evaluation.scores(name), correct) for name in methods]
    overall = 1 - sum(correct) / len(correct)
    half = curves[0][1][(len(correct) - 1) // 2]
    words = (
        f"Of all answers {overall:.0%} are wrong; of the half that {methods[0]} is most certain "
        f"of, {half:.0%}."
    )

    def draw(axes: Any) -> None:
        for name, curve, colour, dash in zip(methods, curves, COLOURS, DASHES, strict=False):
            axes.plot(*curve, color=colour, linestyle=dash, label=name)
        axes.axhline(overall, color="black", linewidth=0.7)
        axes.set(xlabel="share answered", ylabel="share wrong of the answered", xlim=(0, 1))
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)

    return Chart("risk-coverage", "Risk and coverage", words, draw)


def _reliability(evaluation: Evaluation, method: str) -> Chart | None:
    """Return the diagram of the model's own confidence, or of one that is fitted on one half."""
    graded = evaluation.graded
    own = [one.confidence for one in graded]
    if all(one is not None for one in own):
        values, correct = np.array(own, float), evaluation.correct
        whose = "the model's calibration"
    else:
        half = _fitted_on_half(evaluation, method)
        if half is None:
            return None
        values, correct = half
        whose = f"{method}, scaled on every second answer and shown for the others"
    bins, error = reliability(values, correct, bins=BINS), ece(values, correct, bins=BINS)
    words = (
        f"Confidence by {whose}: it is {error.value:.2f} from the share that is right, on average "
        f"(ECE, {BINS} bins)."
    )
    return Chart("reliability", "Reliability", words, partial(_draw_bins, bins=bins))


def _fitted_on_half(evaluation: Evaluation, method: str) -> tuple[Floats, list[bool]] | None:
    scores, correct = evaluation.scores(method), evaluation.correct
    try:
        values = fit_confidence(scores[::2], correct[::2]).of_all(scores[1::2])
    except ConfigurationError:  # they are not both right and wrong
        return None
    known = np.isfinite(values)
    right = [one for one, is_known in zip(correct[1::2], known, strict=True) if is_known]
    return (values[known], right) if right else None


def _draw_bins(axes: Any, bins: Sequence[ReliabilityBin]) -> None:
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.7)
    for one in bins:
        axes.bar(
            one.lower,
            one.accuracy,
            one.upper - one.lower,
            align="edge",
            color=COLOURS[0],
            edgecolor="black",
            alpha=0.6,
        )
        axes.plot(one.confidence, one.accuracy, "o", color=COLOURS[1], markersize=4)
        axes.text(one.lower, one.accuracy + 0.02, str(one.count), fontsize=7)
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1.1))


def _histogram(evaluation: Evaluation, method: str) -> Chart | None:
    pairs = zip(evaluation.scores(method), evaluation.correct, strict=True)
    known = [(score, right) for score, right in pairs if score is not None]
    right = [score for score, is_right in known if is_right]
    wrong = [score for score, is_right in known if not is_right]
    if not right or not wrong:
        return None
    words = (
        f"The median of {method} is {np.median(right):.3g} for right answers and "
        f"{np.median(wrong):.3g} for wrong ones."
    )

    def draw(axes: Any) -> None:
        edges = np.histogram_bin_edges(right + wrong, bins=20)
        axes.hist(right, edges, color=COLOURS[0], alpha=0.6, label="right", edgecolor="black")
        axes.hist(wrong, edges, facecolor="none", edgecolor=COLOURS[1], hatch="///", label="wrong")
        axes.set(xlabel=f"{method}; higher is more uncertain", ylabel="answers")
        axes.legend(frameon=False, fontsize=8)

    return Chart("scores", "Scores of right and wrong answers", words, draw)


def _methods(rows: Sequence[MethodSummary]) -> Chart | None:
    known = [one for one in reversed(rows) if one.auroc.value is not None]
    if not known:
        return None
    best = known[-1]
    words = (
        f"{best.method} has the highest AUROC, {best.auroc.value:.3f}. The bars are intervals of "
        "95%; 0.5 is chance. The numbers are the tokens that an answer's score costs."
    )

    def draw(axes: Any) -> None:
        for place, one in enumerate(known):
            ends = one.auroc.interval
            if ends is not None:
                axes.plot([ends.lower, ends.upper], [place, place], color=COLOURS[0])
            axes.plot(one.auroc.value, place, "o", color=COLOURS[0], markersize=4)
            tokens = "?" if one.cost is None else f"{one.cost.tokens:.0f}"
            axes.annotate(tokens, (one.auroc.value, place), (0, 4), textcoords="offset points",
                          fontsize=7, ha="center")  # fmt: skip  # what, where, how
        axes.axvline(0.5, color="black", linewidth=0.7)
        axes.set_yticks(range(len(known)), [one.method for one in known], fontsize=7)
        axes.set(xlabel="AUROC")

    return Chart("methods", "Methods and their cost", words, draw)
