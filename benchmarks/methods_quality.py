"""How well each method separates wrong answers from right ones, and what it costs.

Greedy answers of the demo model to the capitals of 174 countries. Densities and the supervised head
are fitted on every second question, answered once greedily and once by a sample (RDE needs more
than a hundred texts); all methods are measured on the others: the area under the ROC curve for
finding the wrong answers, and the prediction rejection ratio (1 for an oracle, 0 for chance; ties
count as their mean). An unknown score counts as the most uncertain. The served model itself judges
entailment, and similarity is that of its hidden states. Seconds and tokens a question are those of
the method alone, on a few questions one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.capitals import Question, questions, start
from benchmarks.report import conclude
from uq_llm_integrations import (
    METHODS,
    EmbeddingSimilarity,
    MethodOptions,
    Request,
    Result,
    Single,
    VLLMEngineBackend,
    fit_density,
    fit_head,
    run_strategy,
)

SEQUENCE = [name for name, method in METHODS.items() if method.level == "sequence"]
SAMPLING = {"temperature": 0.0, "seed": 3000}
TRAINING = SAMPLING, {"temperature": 0.7, "seed": 3001}
ALONE = 6
"""Questions on which each method's own cost is measured."""


def main() -> None:
    """Measure and conclude."""
    backend = start()
    given = questions(backend)
    training, held_out = given[0::2], given[1::2]
    options = fitted(backend, training)
    print("fitted", flush=True)
    requests = [request(question) for question in held_out]
    results = backend.run(answered(backend, requests, SEQUENCE, options))
    wrong = np.array([not q.is_right(r.text) for q, r in zip(held_out, results, strict=True)])
    figures: dict[str, Any] = {"questions": len(wrong), "wrong": float(wrong.mean())}
    for name in SEQUENCE:
        values = [result.scores[0][name].value for result in results]
        costs = alone(backend, requests[:ALONE], name, options)
        figures[name] = quality(wrong, values) | costs
        print(name, figures[name], flush=True)
    backend.close()
    best = max(figures[name]["auroc"] for name in SEQUENCE)
    conclude("methods_quality", figures, {"best area under the ROC curve": (0.8, best)})


def request(question: Question) -> Request:
    """Return the request for a greedy answer, with the question's own words."""
    words = f"What is the capital of {question.country}?"
    return replace(question.request(**SAMPLING), text=words)


def fitted(backend: VLLMEngineBackend, training: list[Question]) -> MethodOptions:
    """Return what hidden-state methods compare with, fitted on the training questions."""
    given = [(question, sampling) for sampling in TRAINING for question in training]
    requests = [question.request(**sampling) for question, sampling in given]
    results = backend.run(answered(backend, requests, ["perplexity"], MethodOptions()))
    candidates = [result.candidate for result in results]
    wrong = [not q.is_right(r.text) for (q, _), r in zip(given, results, strict=True)]
    background = [f"Write a sentence about {word}." for word in WORDS]
    return MethodOptions(
        similarity=EmbeddingSimilarity(),
        density=fit_density(backend, candidates, background=background, chat=True, max_tokens=24),
        head=fit_head(backend, candidates, wrong),
    )


WORDS = ("rain", "bread", "music", "snow", "trains", "birds", "bridges", "gold", "chess", "sleep",
    "rivers", "glass", "salt", "wind", "paper", "horses", "maps", "clocks", "tea", "stone", "bees",
    "theatre", "iron", "wool", "milk", "oceans", "forests", "letters", "kites")  # fmt: skip


async def answered(
    backend: VLLMEngineBackend,
    requests: list[Request],
    methods: Sequence[str],
    options: MethodOptions,
) -> list[Result]:
    """Answer all, eight at a time, so that the judge's prompts do not crowd out one another."""
    gate = asyncio.Semaphore(8)

    async def one(request: Request) -> Result:
        async with gate:
            return await run_strategy(Single(), request, backend, methods, options)

    return list(await asyncio.gather(*map(one, requests)))


def alone(
    backend: VLLMEngineBackend, requests: list[Request], name: str, options: MethodOptions
) -> dict[str, float]:
    """Return seconds and tokens a question of one method, beyond the answer itself."""
    started, tokens = time.perf_counter(), 0
    for one in requests:
        running = run_strategy(Single(), one, backend, [name], options)
        usage = backend.run(running).usage
        tokens += usage.prompt_tokens + usage.generated_tokens + usage.scored_tokens
    seconds = (time.perf_counter() - started) / len(requests)
    return {"seconds": seconds, "tokens": tokens / len(requests)}


def quality(wrong: np.ndarray[Any, Any], values: list[float | None]) -> dict[str, float]:
    """Return both measures, and how many scores are unknown."""
    known = [value for value in values if value is not None]
    most = max(known, default=0.0) + 1.0
    scores = np.array([most if value is None else value for value in values])
    return {
        "auroc": float(roc_auc_score(wrong, scores)),
        "prr": rejection_ratio(~wrong, scores),
        "unknown": len(values) - len(known),
    }


def rejection_ratio(right: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    """Return the prediction rejection ratio; among equal scores any order is as likely.

    The accuracy of the k least uncertain answers, averaged over k, from chance to an oracle.
    """
    chance, best = right.mean(), _retained(right, (~right).astype(float))
    return float((_retained(right, scores) - chance) / (best - chance))


def _retained(right: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    _, group = np.unique(scores, return_inverse=True)
    expected = np.bincount(group, right) / np.bincount(group)
    kept = np.cumsum(expected[np.sort(group)])
    return float(np.mean(kept / np.arange(1, len(right) + 1)))


if __name__ == "__main__":
    main()
