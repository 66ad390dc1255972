"""How well each method separates wrong answers from right ones, and what it costs.

As `benchmarks.one_pass`, on the engine and with all methods; those that cost more than the answer
have fewer questions. Densities and the supervised head are fitted on further questions of the set,
answered once greedily and once by a sample (RDE needs more than a hundred texts). Methods that rest
on a judge are measured with two: sentence embeddings, and the served model itself, with the
similarity of its hidden states. Tokens and seconds a question are those of the answer and the
method alone, on a capital.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from benchmarks.capitals import start
from benchmarks.graded_questions import SETS
from benchmarks.one_pass import (
    GREEDY,
    MEASURED,
    ONE_PASS,
    Asked,
    answered,
    are_right,
    goals,
    measures,
    request,
    values,
    verdict,
)
from benchmarks.report import BENCHMARKS, conclude, record, write_table
from uq_llm_integrations import (
    METHODS,
    Backend,
    EmbeddingSimilarity,
    MethodOptions,
    SentenceEmbeddings,
    ServedJudge,
    fit_density,
    fit_head,
)
from uq_llm_integrations.evaluation import Question

SAMPLED = {"temperature": 0.7, "seed": 3001}
COSTLY, TRAINING = 24, 60
"""Questions to measure methods on that cost more than the answer, and questions to fit on."""

SEQUENCE = [
    name
    for name, one in METHODS.items()
    if one.level == "sequence" and one.category != "calibrated"
]
JUDGED = [name for name in SEQUENCE if METHODS[name].judged_by]
OTHERS = [name for name in SEQUENCE if name not in ONE_PASS + JUDGED]
BY_ITSELF = [name for name in JUDGED if name != "ClaimConditionedProbability"]
"""With the served model as judge that takes some 6,000 tokens a question."""


def main() -> None:
    """Measure and conclude; what most questions answer comes first."""
    backend = start()
    sets = {name: Costly(Asked.of(backend, name)) for name in SETS}
    found = {name: one.asked.of_one_pass() for name, one in sets.items()}
    figures: dict[str, Any] = {"verdict": verdict(found), "sets": found}
    print(figures["verdict"], flush=True)
    for name, one in sets.items():
        record("methods_quality", figures, goals(found))
        found[name]["methods"] |= one.measured()
        show(name, found[name])
    figures["cost"] = sets["capitals"].costs()
    backend.close()
    heads = ["method", *SETS, "tokens", "seconds"]
    write_table("methods", heads, rows(found, figures["cost"]), to=BENCHMARKS)
    conclude("methods_quality", figures, goals(found))


@dataclass(frozen=True)
class Costly:
    """The methods that cost more than the answer, on some of the questions of a set."""

    asked: Asked

    def measured(self) -> dict[str, Any]:
        """Return both measures of all these methods, with each judge."""
        scores: dict[str, list[float | None]] = {}
        for words, names, options in self._judges():
            results = answered(self.asked.backend, self.asked.requests[:COSTLY], names, options)
            found = values(results, names)
            scores |= {name + words * (name in JUDGED): of for name, of in found.items()}
        return measures(scores, self.asked.right)

    def costs(self) -> dict[str, dict[str, float]]:
        """Return seconds and tokens of each method for a question, with the answer itself."""
        found = {}
        for words, names, options in self._judges():
            for name in names:
                found[name + words * (name in JUDGED)] = self._alone(name, options)
        return found | {name: self._alone(name, self._options) for name in ONE_PASS}

    @cached_property
    def _options(self) -> MethodOptions:
        training = self.asked.questions[MEASURED : MEASURED + TRAINING]
        return replace(fitted(self.asked.backend, training), span=self.asked.span)

    def _judges(self) -> list[tuple[str, list[str], MethodOptions]]:
        apart, hidden = SentenceEmbeddings(), EmbeddingSimilarity()
        embeddings = replace(self._options, entailment=apart, similarity=apart)
        served = replace(self._options, entailment=ServedJudge(), similarity=hidden)
        return [
            (", by sentence embeddings", OTHERS + JUDGED, embeddings),
            (", by itself", BY_ITSELF, served),
        ]

    def _alone(self, name: str, options: MethodOptions) -> dict[str, float]:
        started = time.perf_counter()
        (result,) = answered(self.asked.backend, self.asked.requests[:1], [name], options)
        seconds, usage = time.perf_counter() - started, result.usage
        tokens = usage.prompt_tokens + usage.generated_tokens + usage.scored_tokens
        return {"seconds": seconds, "tokens": tokens}


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


def show(name: str, found: Mapping[str, Any]) -> None:
    """Print the methods of a set, the best first."""
    print(f"{name}: {found['questions']} questions, {found['right']:.2f} right", flush=True)
    by_auroc = sorted(found["methods"].items(), key=lambda one: -(one[1]["auroc"]["value"] or 0))
    for method, both in by_auroc:
        print(f"  {method}: AUROC {both['auroc']}, PRR {both['prr']}", flush=True)


def rows(
    found: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Mapping[str, float]]
) -> list[list[str]]:
    """Return the cells of a table of all methods, the highest mean AUROC over the sets first."""

    def total(name: str) -> float:
        return sum(one["methods"][name]["auroc"]["value"] for one in found.values())

    return [
        [name, *(cell(**one["methods"][name]) for one in found.values()), *cost_cells(costs[name])]
        for name in sorted(costs, key=total, reverse=True)
    ]


def cell(auroc: Mapping[str, Any], prr: Mapping[str, Any]) -> str:
    """Return both measures in words."""
    lower, upper = auroc["interval"]
    return f"{auroc['value']:.2f} ({lower:.2f} to {upper:.2f}); {prr['value']:.2f}"


def cost_cells(cost: Mapping[str, float]) -> list[str]:
    """Return tokens and seconds in words."""
    return [f"{cost['tokens']:.0f}", f"{cost['seconds']:.2f}"]


if __name__ == "__main__":
    main()
