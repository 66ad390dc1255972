"""What a promise made from a real model's graded answers is worth, there and elsewhere.

Three sets of questions of different kinds. A calibration is made of one half of a set's answers;
with it, the model answers the other half or abstains. Promised is the smallest of four shares of
wrong answers that this half allows; the 5% by which a promise may fail are divided among the four,
so that the choice costs nothing. The same calibration is then used where it does not belong, on
the other sets, and a drift watch of it is shown the scores there.

Whether a promise of 30% is kept as often as it says is counted over 1,000 calibration sets, drawn
with replacement from all answers to a set, which are the whole population there; beside it stand
conformal risk control, the naive threshold and the oracle, as in `benchmarks.calibration`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.calibration import DELTA, TOLERANCE, Population, measured
from benchmarks.capitals import start
from benchmarks.graded_questions import MODEL_OPTIONS, SETS, TEMPLATE
from benchmarks.report import conclude
from uq_llm_integrations import UncertaintyModel
from uq_llm_integrations.calibration import Calibration, DriftWatch, auroc
from uq_llm_integrations.evaluation import Evaluation, Question, calibration_of, evaluate

METHOD = "maxprob"
RISKS = 0.2, 0.3, 0.4, 0.5
RISK, COUNTS = 0.3, (30, 100, 200)
"""Of the 1,000 calibration sets."""


@dataclass(frozen=True)
class Halves:
    """The graded answers to one set: those that calibrate, and the others."""

    calibrating: Evaluation
    held_out: Evaluation
    calibration: Calibration
    risk: float | None
    """What is promised of the other half; None where nothing can be."""

    @property
    def population(self) -> Population:
        """All of the answers."""
        parts = (self.calibrating, self.held_out)
        scores = [one for part in parts for one in part.scores(METHOD)]
        return Population(_numbers(scores), np.array([c for part in parts for c in part.correct]))


def main() -> None:
    """Measure and conclude."""
    model = UncertaintyModel(start(), methods=[METHOD], **MODEL_OPTIONS)
    with model, tempfile.TemporaryDirectory() as room:
        sets = {name: answered(model, name, Path(room)) for name in SETS}
    figures = {name: shown(name, one) for name, one in sets.items()}
    moves = {
        f"{here} to {there}": moved(sets[here], sets[there])
        for here in sets
        for there in sets
        if here != there
    }
    for move, found in moves.items():
        print(f"{move}: {found}", flush=True)
    repeated = {name: splits(name, one.population) for name, one in sets.items()}
    conclude(
        "guarantees",
        {"sets": figures, "elsewhere": moves, "1000 calibration sets": repeated},
        goals(figures, moves, repeated),
    )


def answered(model: UncertaintyModel, name: str, room: Path) -> Halves:
    """Ask half of a set, calibrate by it, and ask the other half of the calibrated model."""
    questions = SETS[name]()
    Random(0).shuffle(questions)  # no secret
    half = len(questions) // 2
    graded = ask(model, questions[:half], room / f"{name}.jsonl")
    made = calibration_of(graded, [METHOD], risk=RISKS[0], delta=DELTA / len(RISKS))
    risk = next((one for one in RISKS if made.threshold(one).value is not None), None)
    calibrated = model.with_options(calibration=made, risk=risk, on_high_uncertainty="abstain")
    others = ask(calibrated, questions[half:], room / f"{name}, held out.jsonl")
    return Halves(graded, others, made, risk)


def ask(model: UncertaintyModel, questions: Sequence[Question], path: Path) -> Evaluation:
    """Ask a model, and grade its answers."""
    return evaluate(
        model, questions, path, template=TEMPLATE, concurrency=32, cost_items=0, keep_tokens=False
    )


def shown(name: str, halves: Halves) -> dict[str, Any]:
    """Return what was promised for a set, and what the other half of its answers shows."""
    people, held_out = halves.population, halves.held_out.graded
    given = [] if halves.risk is None else [one for one in held_out if not one.is_uncertain]
    found: dict[str, Any] = {
        "questions": len(people.right),
        "wrong of all": float((~people.right).mean()),
        "auroc": auroc(people.scores, people.right).value,
        "promised": halves.risk,
        "coverage foreseen": _foreseen(halves),
    }
    found |= _answered([bool(one.grade.correct) for one in given], len(held_out))
    found |= _watched(halves.calibration, halves.held_out.scores(METHOD))
    print(f"{name}: {found}", flush=True)
    return found


def moved(here: Halves, there: Halves) -> dict[str, Any]:
    """Return what a threshold does on another set, and when the drift watch notices."""
    people, given = there.population, []
    if here.risk is not None:
        accepts = here.calibration.threshold(here.risk).accepts
        given = [bool(r) for s, r in zip(people.scores, people.right, strict=True) if accepts(s)]
    found = {"promised": here.risk, "coverage foreseen": _foreseen(here)}
    found |= _answered(given, len(people.right))
    return found | _watched(here.calibration, list(people.scores))


def splits(name: str, people: Population) -> dict[str, dict[str, dict[str, float]]]:
    """Return how often promises from small calibration sets are broken, by their sizes."""
    found = {
        str(count): {
            kind: measured(people, count, kind, risk=RISK)
            for kind in ("learn then test", "conformal", "naive", "oracle")
        }
        for count in COUNTS
    }
    for count, kinds in found.items():
        words = (f"{kind} {one['broken']:.3f} {one['coverage']:.2f}" for kind, one in kinds.items())
        print(f"{name}, {count} (broken, answered): {', '.join(words)}", flush=True)
    return found


def goals(
    figures: Mapping[str, Any], moves: Mapping[str, Any], repeated: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """Return what was wanted, and what was reached."""
    tested = [one["learn then test"] for sizes in repeated.values() for one in sizes.values()]
    conformal = [one["conformal"] for sizes in repeated.values() for one in sizes.values()]
    broken = max(one["broken"] for one in tested)
    false_alarms = [one["noticed after"] is not None for one in figures.values()]
    failed = [one for one in moves.values() if is_broken(one) or answers_half(one)]
    return {
        "promise kept over 1,000 sets, worst case": (1 - DELTA - TOLERANCE, 1 - broken),
        "not answered wrongly, conformal, worst case": (
            1 - RISK - 0.001,
            1 - max(one["wrong of all"] for one in conformal),
        ),
        "promises kept on the other half": (
            1.0,
            float(np.mean([not is_broken(one) for one in figures.values()])),
        ),
        "moves that break the promise or halve what is answered": (
            1 / len(moves),
            len(failed) / len(moves),
        ),
        "such moves that are noticed": (
            1.0,
            float(np.mean([one["noticed after"] is not None for one in failed])),
        ),
        "sets without a false alarm": (1.0, 1 - float(np.mean(false_alarms))),
    }


def is_broken(found: Mapping[str, Any]) -> bool:
    """Return whether more are wrong than was promised, beyond what chance does to so few answers.

    By the one-sided exact binomial test at 5%.
    """
    if not found["answered"]:
        return False
    test = binomtest(found["wrong"], found["answered"], found["promised"], alternative="greater")
    return bool(test.pvalue < DELTA)


def answers_half(found: Mapping[str, Any]) -> bool:
    """Return whether not even half as many questions are answered as was foreseen."""
    return bool(found["coverage"] < found["coverage foreseen"] / 2)


def _answered(correct: Sequence[bool], asked: int) -> dict[str, Any]:
    """Return how many of the questions were answered, and how many of these wrongly."""
    wrong = correct.count(False)
    return {
        "answered": len(correct),
        "wrong": wrong,
        "coverage": len(correct) / asked,
        "wrong among the answered": wrong / len(correct) if correct else None,
    }


def _foreseen(halves: Halves) -> float:
    return 0.0 if halves.risk is None else halves.calibration.threshold(halves.risk).coverage


def _watched(calibration: Calibration, scores: Sequence[float | None]) -> dict[str, Any]:
    watch = DriftWatch(calibration)
    for score in scores:
        watch.add(score)
    state = watch.state
    return {"noticed after": state.alarmed_at, "evidence": state.evidence}


def _numbers(scores: Sequence[float | None]) -> Any:
    return np.array([np.nan if one is None else one for one in scores])


if __name__ == "__main__":
    main()
