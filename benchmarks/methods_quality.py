"""How well each method separates wrong answers from right ones, and what it costs.

Greedy answers of the demo model to three sets of questions (`benchmarks.graded_questions`), up to
the end of their first sentence. Methods of one pass, which cost nothing beside the answer, have
more questions than the others. Densities and the supervised head are fitted on further questions of
the set, answered once greedily and once by a sample (RDE needs more than a hundred texts).

The area under the ROC curve for finding the wrong answers, and the prediction rejection ratio at
1/2 (1 for an oracle, 0 for chance), with 95% bootstrap intervals over questions; an unknown score
counts as the most uncertain. Methods that rest on a judge are measured with two: sentence
embeddings, and the served model itself, with the similarity of its hidden states. Tokens and
seconds a question are those of the answer and the method alone, on a capital.

With the argument `one-pass` only methods of one pass are measured, by transformers in place of the
engine.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any

import numpy as np

from benchmarks.capitals import start
from benchmarks.graded_questions import SETS, TEMPLATE
from benchmarks.report import conclude, record
from uq_llm_integrations import (
    METHODS,
    Backend,
    EmbeddingSimilarity,
    HuggingFaceBackend,
    MethodOptions,
    Request,
    Result,
    SentenceEmbeddings,
    ServedJudge,
    Single,
    fit_density,
    fit_head,
    run_strategy,
)
from uq_llm_integrations.calibration import Metric, auroc, bootstrap, bootstrap_difference, prr
from uq_llm_integrations.evaluation import Contains, Question

SAMPLING = {"max_tokens": 32, "stop": [".", "\n"]}
GREEDY = {"temperature": 0.0, "seed": 3000}
SAMPLED = {"temperature": 0.7, "seed": 3001}
MEASURED, COSTLY, TRAINING = 120, 24, 60
"""Questions to measure methods of one pass on; of these, those for the others; and to fit on."""

_NAME = r"[A-Z][\w'-]*(?: [A-Z][\w'-]*)*"
SPANS = {
    "capitals": rf"\bis (?:[a-z]+ )*({_NAME})",
    "cities": rf"\bin (?:[a-z]+ )*({_NAME})",
    "reading": r"\b(?:is|has) (?:the )?(\w[\w' -]*)",
}
"""What finds the answer itself in what is said."""

BASELINE = "MaximumSequenceProbability"
SEQUENCE = [
    name
    for name, one in METHODS.items()
    if one.level == "sequence" and one.category != "calibrated"
]
ONE_PASS = [name for name in SEQUENCE if METHODS[name].cost == "nothing"]
JUDGED = [name for name in SEQUENCE if METHODS[name].judged_by]
OTHERS = [name for name in SEQUENCE if name not in ONE_PASS + JUDGED]
BY_ITSELF = [name for name in JUDGED if name != "ClaimConditionedProbability"]
"""With the served model as judge that takes some 6,000 tokens a question."""

GOAL = "sets in which a method of one pass has an AUROC above 0.6"

Scores = Mapping[str, list[float | None]]


def main() -> None:
    """Measure and conclude; what most questions answer comes first."""
    alone = sys.argv[1:] == ["one-pass"]
    backend = HuggingFaceBackend("smollm2") if alone else start()
    sets = {name: Asked.of(backend, name) for name in SETS}
    found = {name: one.of_one_pass() for name, one in sets.items()}
    figures: dict[str, Any] = {"verdict": verdict(found), "sets": found}
    print(figures["verdict"], flush=True)
    goals = {GOAL: (3.0, float(sum(map(is_useful, found.values()))))}
    record("methods_quality", figures, goals)
    for name, one in {} if alone else sets.items():
        found[name]["methods"] |= one.of_others()
        show(name, found[name])
        record("methods_quality", figures, goals)
    figures["cost"] = {} if alone else sets["capitals"].costs()
    backend.close()
    conclude("methods_quality", figures, goals)


@dataclass(frozen=True)
class Asked:
    """The questions of a set, those that methods are measured on answered."""

    backend: Backend
    training: list[Question]
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
        training = questions[MEASURED : MEASURED + TRAINING]
        right, scores = are_right(results, measured), values(results, ONE_PASS)
        return cls(backend, training, requests, right, scores, SPANS[name])

    def of_one_pass(self) -> dict[str, Any]:
        """Return both measures of methods of one pass, and how much better they order answers."""
        base = self.scores[BASELINE]
        return {
            "questions": len(self.right),
            "right": float(np.mean(self.right)),
            "methods": self._measured(self.scores),
            "AUROC over sequence probability": {
                name: plain(bootstrap_difference(auroc, of, base, self.right))
                for name, of in self.scores.items()
                if name != BASELINE
            },
        }

    def of_others(self) -> dict[str, Any]:
        """Return both measures of all other methods, with each judge."""
        scores: dict[str, list[float | None]] = {}
        for words, names, options in self._judges():
            results = answered(self.backend, self.requests[:COSTLY], names, options)
            found = values(results, names)
            scores |= {name + words * (name in JUDGED): of for name, of in found.items()}
        return self._measured(scores)

    def costs(self) -> dict[str, dict[str, float]]:
        """Return seconds and tokens of each method for a question, with the answer itself."""
        found = {}
        for words, names, options in self._judges():
            for name in names:
                found[name + words * (name in JUDGED)] = self._alone(name, options)
        return found | {name: self._alone(name, self._options) for name in ONE_PASS}

    @cached_property
    def _options(self) -> MethodOptions:
        return replace(fitted(self.backend, self.training), span=self.span)

    def _judges(self) -> list[tuple[str, list[str], MethodOptions]]:
        apart, hidden = SentenceEmbeddings(), EmbeddingSimilarity()
        embeddings = replace(self._options, entailment=apart, similarity=apart)
        served = replace(self._options, entailment=ServedJudge(), similarity=hidden)
        return [
            (", by sentence embeddings", OTHERS + JUDGED, embeddings),
            (", by itself", BY_ITSELF, served),
        ]

    def _measured(self, scores: Scores) -> dict[str, Any]:
        return {
            name: {
                "auroc": plain(bootstrap(auroc, of, self.right[: len(of)])),
                "prr": plain(bootstrap(prr, of, self.right[: len(of)])),
            }
            for name, of in scores.items()
        }

    def _alone(self, name: str, options: MethodOptions) -> dict[str, float]:
        started = time.perf_counter()
        (result,) = answered(self.backend, self.requests[:1], [name], options)
        seconds, usage = time.perf_counter() - started, result.usage
        tokens = usage.prompt_tokens + usage.generated_tokens + usage.scored_tokens
        return {"seconds": seconds, "tokens": tokens}


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


def fitted(backend: Backend, training: list[Question]) -> MethodOptions:
    """Return what hidden-state methods compare with."""
    requests = [
        request(backend, one, sampling) for sampling in (GREEDY, SAMPLED) for one in training
    ]
    results = answered(backend, requests, ["perplexity"], MethodOptions())
    candidates = [result.candidate for result in results]
    background = [f"Write a sentence about {word}." for word in WORDS]
    return MethodOptions(
        density=fit_density(backend, candidates, background=background, chat=True, max_tokens=24),
        head=fit_head(backend, candidates, [not one for one in are_right(results, training * 2)]),
    )


WORDS = ("rain", "bread", "music", "snow", "trains", "birds", "bridges", "gold", "chess", "sleep",
    "rivers", "glass", "salt", "wind", "paper", "horses", "maps", "clocks", "tea", "stone", "bees",
    "theatre", "iron", "wool", "milk", "oceans", "forests", "letters", "kites")  # fmt: skip


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


def show(name: str, found: Mapping[str, Any]) -> None:
    """Print the methods of a set, the best first."""
    print(f"{name}: {found['questions']} questions, {found['right']:.2f} right", flush=True)
    by_auroc = sorted(found["methods"].items(), key=lambda one: -(one[1]["auroc"]["value"] or 0))
    for method, both in by_auroc:
        print(f"  {method}: AUROC {both['auroc']}, PRR {both['prr']}", flush=True)


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
