"""How well methods of one pass separate wrong answers from right ones, and whether one is best.

Greedy answers of the demo model to three sets of questions (`benchmarks.graded_questions`), up to
the end of their first sentence, by transformers: no engine is started. The area under the ROC curve
for finding the wrong answers, and the prediction rejection ratio at 1/2 (1 for an oracle, 0 for
chance), with 95% bootstrap intervals over questions; an unknown score counts as the most uncertain.
A method beats sequence probability where the interval of the difference of their areas, on the same
questions, lies above 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from benchmarks.graded_questions import SETS, TEMPLATE
from benchmarks.report import conclude
from uq_llm_integrations import (
    METHODS,
    Backend,
    HuggingFaceBackend,
    MethodOptions,
    Request,
    Result,
    Single,
    run_strategy,
)
from uq_llm_integrations.calibration import Metric, auroc, bootstrap, bootstrap_difference, prr
from uq_llm_integrations.evaluation import Contains, Question

SAMPLING = {"max_tokens": 32, "stop": [".", "\n"]}
GREEDY = {"temperature": 0.0, "seed": 3000}
MEASURED = 120

_NAME = r"[A-Z][\w'-]*(?: [A-Z][\w'-]*)*"
SPANS = {
    "capitals": rf"\bis (?:[a-z]+ )*({_NAME})",
    "cities": rf"\bin (?:[a-z]+ )*({_NAME})",
    "reading": r"\b(?:is|has) (?:the )?(\w[\w' -]*)",
}
"""What finds the answer itself in what is said."""

BASELINE = "MaximumSequenceProbability"
ONE_PASS = [
    name for name, one in METHODS.items() if one.level == "sequence" and one.cost == "nothing"
]
"""What costs nothing beside the answer."""

GOAL = "sets in which a method of one pass has an AUROC above 0.6"

Scores = Mapping[str, list[float | None]]


def main() -> None:
    """Measure and conclude."""
    with HuggingFaceBackend("smollm2") as backend:
        found = {name: Asked.of(backend, name).of_one_pass() for name in SETS}
    figures = {"verdict": verdict(found), "sets": found}
    print(figures["verdict"])
    conclude("one_pass", figures, goals(found))


def goals(found: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return the goal and what was reached."""
    return {GOAL: (3.0, float(sum(map(is_useful, found.values()))))}


@dataclass(frozen=True)
class Asked:
    """The questions of a set, those that methods are measured on answered."""

    backend: Backend
    questions: list[Question]
    """All of the set, those that methods are measured on first."""
    requests: list[Request]
    right: list[bool]
    scores: Scores
    span: str

    @classmethod
    def of(cls, backend: Backend, name: str) -> Asked:
        """Answer questions of a set, with the scores of methods of one pass."""
        questions = SETS[name]()
        Random(5).shuffle(questions)  # no secret
        measured = questions[:MEASURED]
        requests = [request(backend, one, GREEDY) for one in measured]
        results = answered(backend, requests, ONE_PASS, MethodOptions(span=SPANS[name]))
        right, scores = are_right(results, measured), values(results, ONE_PASS)
        return cls(backend, questions, requests, right, scores, SPANS[name])

    def of_one_pass(self) -> dict[str, Any]:
        """Return both measures of methods of one pass, and how much better they order answers."""
        base = self.scores[BASELINE]
        return {
            "questions": len(self.right),
            "right": float(np.mean(self.right)),
            "methods": measures(self.scores, self.right),
            "AUROC over sequence probability": {
                name: plain(bootstrap_difference(auroc, of, base, self.right))
                for name, of in self.scores.items()
                if name != BASELINE
            },
        }


def measures(scores: Scores, right: list[bool]) -> dict[str, Any]:
    """Return both measures of each method, over as many questions as it has scores."""
    return {
        name: {
            "auroc": plain(bootstrap(auroc, of, right[: len(of)])),
            "prr": plain(bootstrap(prr, of, right[: len(of)])),
        }
        for name, of in scores.items()
    }


def values(results: Sequence[Result], names: Sequence[str]) -> dict[str, list[float | None]]:
    """Return the scores of each method."""
    return {name: [one.scores[0][name].value for one in results] for name in names}


def request(backend: Backend, question: Question, sampling: dict[str, Any]) -> Request:
    """Return the request for an answer, with the question's own words."""
    words = question.question
    if question.sources:
        words = TEMPLATE.format(sources="\n".join(question.sources), question=words)
    ids = backend.run(backend.encode(words, chat=True))
    return replace(Request(ids, sampling=SAMPLING | sampling), text=words)


def are_right(results: Sequence[Result], questions: Sequence[Question]) -> list[bool]:
    """Return which answers contain what is right."""
    grade = Contains()
    return [
        bool(grade(one.text, question).correct)
        for one, question in zip(results, questions, strict=True)
    ]


def answered(
    backend: Backend,
    requests: Sequence[Request],
    methods: Sequence[str],
    options: MethodOptions,
) -> list[Result]:
    """Answer all, eight at a time, so that the judge's prompts do not crowd out one another."""

    async def all_() -> list[Result]:
        gate = asyncio.Semaphore(8)

        async def one(request: Request) -> Result:
            async with gate:
                return await run_strategy(Single(), request, backend, methods, options)

        return list(await asyncio.gather(*map(one, requests)))

    return backend.run(all_())


def plain(found: Metric) -> dict[str, Any]:
    """Return a metric with its interval as plain data."""
    ends = found.interval and (found.interval.lower, found.interval.upper)
    return {
        "value": found.value,
        "interval": ends,
        "questions": found.count,
        "unknown": found.unknown,
    }


def is_useful(found: Mapping[str, Any]) -> bool:
    """Return whether some method of one pass tells wrong answers of a set from right ones."""
    return max(found["methods"][name]["auroc"]["value"] or 0.0 for name in ONE_PASS) > 0.6


def verdict(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Say whether a method of one pass beats sequence probability on two of the sets.

    It does where the interval of the difference in AUROC lies above 0.
    """
    better = {
        name: [
            one
            for one, found in sets.items()
            if (ends := found["AUROC over sequence probability"][name]["interval"]) and ends[0] > 0
        ]
        for name in ONE_PASS
        if name != BASELINE
    }
    two = {name: where for name, where in better.items() if len(where) >= 2}
    if not two:
        return "No method of one pass beats sequence probability on two of the three sets."
    named = "; ".join(f"{name} ({', '.join(where)})" for name, where in two.items())
    return f"These methods of one pass beat sequence probability on two of the three sets: {named}."


if __name__ == "__main__":
    main()
