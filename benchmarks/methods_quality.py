"""How well each method separates wrong answers from right ones, and what it costs.

Greedy answers of the demo model to three sets of questions (`benchmarks.graded_questions`), up to
the end of their first sentence. Densities and the supervised head are fitted on some questions of
each set, answered once greedily and once by a sample (RDE needs more than a hundred texts); all
methods are measured on others. Those that cost at most one pass more than the answer have more of
them than those that generate samples or ask a judge.

The area under the ROC curve for finding the wrong answers, and the prediction rejection ratio at
1/2 (1 for an oracle, 0 for chance), with 95% bootstrap intervals over questions; an unknown score
counts as the most uncertain. Methods that rest on a judge are measured with two: sentence
embeddings, and the served model itself, with the similarity of its hidden states. Tokens and
seconds a question are those of the answer and the method alone, on a few capitals one after the
other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from benchmarks.capitals import start
from benchmarks.graded_questions import SETS, TEMPLATE
from benchmarks.report import conclude, record
from uq_llm_integrations import (
    METHODS,
    EmbeddingSimilarity,
    MethodOptions,
    Request,
    Result,
    SentenceEmbeddings,
    ServedJudge,
    Single,
    VLLMEngineBackend,
    fit_density,
    fit_head,
    run_strategy,
)
from uq_llm_integrations.calibration import Metric, auroc, bootstrap, bootstrap_difference, prr
from uq_llm_integrations.evaluation import Contains, Question

SAMPLING = {"max_tokens": 32, "stop": [".", "\n"]}
GREEDY = {"temperature": 0.0, "seed": 3000}
SAMPLED = {"temperature": 0.7, "seed": 3001}
TRAINING, MEASURED, COSTLY, ALONE = 60, 120, 24, 1
"""Questions to fit on; to measure cheap methods on; of these, to measure the others on; and those
on which each method's own cost is measured."""

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
JUDGED = [name for name in SEQUENCE if METHODS[name].judged_by]
CHEAP = [
    name
    for name in SEQUENCE
    if METHODS[name].cost.startswith(("nothing", "one pass")) and name not in JUDGED
]
ONE_PASS = [name for name in CHEAP if METHODS[name].cost == "nothing"]
OTHERS = [name for name in SEQUENCE if name not in CHEAP + JUDGED]
BY_ITSELF = [name for name in JUDGED if name != "ClaimConditionedProbability"]
"""With the served model as judge that takes some 6,000 tokens a question."""

GOAL = "sets in which a method of one pass has an AUROC above 0.6"

Scores = Mapping[str, list[float | None]]


def main() -> None:
    """Measure and conclude; what most questions answer comes first."""
    backend = start()
    given = {name: Asked.of(backend, name) for name in SETS}
    figures: dict[str, Any] = {"sets": {}}
    for name, one in given.items():
        figures["sets"][name] = one.described() | one.measured(one.scores(CHEAP))
        figures["sets"][name]["over sequence probability"] = one.over_baseline()
    figures["verdict"] = verdict(figures["sets"])
    print(figures["verdict"], flush=True)
    goals = {GOAL: (3.0, float(sum(map(is_useful, figures["sets"].values()))))}
    for measure in (Asked.by_embeddings, Asked.by_itself):
        for name, one in given.items():
            record("methods_quality", figures, goals)
            figures["sets"][name]["methods"] |= one.measured(measure(one))["methods"]
            show(name, figures["sets"][name])
    figures["cost"] = given["capitals"].costs()
    backend.close()
    conclude("methods_quality", figures, goals)


@dataclass(frozen=True)
class Asked:
    """The questions of a set that methods are measured on, answered, and their options."""

    backend: VLLMEngineBackend
    requests: list[Request]
    right: list[bool]
    options: MethodOptions
    cheap: Scores

    @classmethod
    def of(cls, backend: VLLMEngineBackend, name: str) -> Asked:
        """Fit on some questions of a set, and answer others with the scores of cheap methods."""
        questions = SETS[name]()
        Random(5).shuffle(questions)  # no secret
        options = replace(fitted(backend, questions[:TRAINING]), span=SPANS[name])
        measured = questions[TRAINING : TRAINING + MEASURED]
        requests = [request(backend, one, GREEDY) for one in measured]
        results = answered(backend, requests, CHEAP, options)
        cheap = {name: [one.scores[0][name].value for one in results] for name in CHEAP}
        return cls(backend, requests, are_right(results, measured), options, cheap)

    def described(self) -> dict[str, Any]:
        """Return how many questions there are, and which share of them is answered right."""
        return {"questions": len(self.right), "right": float(np.mean(self.right))}

    def scores(self, names: Sequence[str]) -> Scores:
        """Return the scores of cheap methods."""
        return {name: self.cheap[name] for name in names}

    def by_embeddings(self) -> Scores:
        """Return the scores of costly methods, with sentence embeddings where one has a judge."""
        judge = SentenceEmbeddings()
        options = replace(self.options, entailment=judge, similarity=judge)
        return self._costly(OTHERS + JUDGED, options, ", by sentence embeddings")

    def by_itself(self) -> Scores:
        """Return the scores of methods that rest on a judge, with the served model as judge."""
        return self._costly(BY_ITSELF, served_judge(self.options), ", by itself")

    def _costly(self, names: Sequence[str], options: MethodOptions, words: str) -> Scores:
        results = answered(self.backend, self.requests[:COSTLY], names, options)
        return {
            name + words * (name in JUDGED): [one.scores[0][name].value for one in results]
            for name in names
        }

    def measured(self, scores: Scores) -> dict[str, Any]:
        """Return both measures of each method."""
        return {
            "methods": {
                name: {
                    "auroc": plain(bootstrap(auroc, of, self.right[: len(of)])),
                    "prr": plain(bootstrap(prr, of, self.right[: len(of)])),
                }
                for name, of in scores.items()
            }
        }

    def over_baseline(self) -> dict[str, Any]:
        """Return how much the AUROC of each cheap method is above that of sequence probability."""
        base = self.cheap[BASELINE]
        return {
            name: plain(bootstrap_difference(auroc, of, base, self.right))
            for name, of in self.cheap.items()
            if name != BASELINE
        }

    def costs(self) -> dict[str, dict[str, float]]:
        """Return seconds and tokens a question of each method, with the answer itself."""
        judge = SentenceEmbeddings()
        apart = replace(self.options, entailment=judge, similarity=judge)
        found = {name: self._alone(name, apart) for name in CHEAP + OTHERS}
        found |= {f"{name}, by sentence embeddings": self._alone(name, apart) for name in JUDGED}
        served = served_judge(self.options)
        return found | {f"{name}, by itself": self._alone(name, served) for name in BY_ITSELF}

    def _alone(self, name: str, options: MethodOptions) -> dict[str, float]:
        started, tokens = time.perf_counter(), 0
        for one in self.requests[:ALONE]:
            running = run_strategy(Single(), one, self.backend, [name], options)
            usage = self.backend.run(running).usage
            tokens += usage.prompt_tokens + usage.generated_tokens + usage.scored_tokens
        seconds = (time.perf_counter() - started) / ALONE
        return {"seconds": seconds, "tokens": tokens / ALONE}


def request(backend: VLLMEngineBackend, question: Question, sampling: dict[str, Any]) -> Request:
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


def fitted(backend: VLLMEngineBackend, training: list[Question]) -> MethodOptions:
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


def served_judge(options: MethodOptions) -> MethodOptions:
    """Return options with the served model as judge, and its hidden states for similarity."""
    return replace(options, entailment=ServedJudge(), similarity=EmbeddingSimilarity())


def answered(
    backend: VLLMEngineBackend,
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
            if (ends := found["over sequence probability"][name]["interval"]) and ends[0] > 0
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
