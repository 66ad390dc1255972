"""How much more often an answer is right where the uncertain ones are declined.

The capitals of 174 countries, by the demo model. On every second question a threshold is set
so that a share of the questions is answered; the figures are of the others. Selective accuracy is
the share of right answers among those given. Retry tries an uncertain answer up to twice more
before it is declined.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from benchmarks.capitals import Question, questions, start
from benchmarks.report import conclude
from uq_llm_integrations import (
    Abstain,
    Result,
    Retry,
    Single,
    VLLMEngineBackend,
    run_strategy,
    score,
)
from uq_llm_integrations.strategies.base import Strategy

COVERAGES = (0.9, 0.7, 0.5)
METHOD = "maxprob"


def main() -> None:
    """Measure and conclude."""
    backend = start()
    given = questions(backend)
    calibration, held_out = given[::2], given[1::2]
    known = backend.run(answers(backend, calibration, Single()))
    values = np.array([result.scores[0][METHOD].value for result in known], float)
    plain = backend.run(answers(backend, held_out, Single()))
    figures: dict[str, Any] = {"no abstention": accuracy(held_out, plain)}
    goals = {}
    for coverage in COVERAGES:
        uncertain = score(METHOD) > float(np.quantile(values, coverage))
        forms: dict[str, Strategy] = {
            "abstain": Abstain(Single(), uncertain, "abstain"),
            "retry, then abstain": Abstain(
                Retry(Single(), uncertain, temperatures=(0.5, 0.7)), uncertain, "abstain"
            ),
        }
        for name, strategy in forms.items():
            results = backend.run(answers(backend, held_out, strategy))
            figures[f"{name}, coverage {coverage}"] = accuracy(held_out, results)
        selective = figures[f"abstain, coverage {coverage}"]["selective accuracy"]
        plainly = figures["no abstention"]["selective accuracy"]
        goals[f"selective accuracy / accuracy, coverage {coverage}"] = (1.0, selective / plainly)
    for name, figure in figures.items():
        print(name, figure)
    backend.close()
    conclude("retry_abstain", figures, goals)


async def answers(
    backend: VLLMEngineBackend, given: list[Question], strategy: Strategy
) -> list[Result]:
    """Return the result of each question."""
    requests = [question.request(temperature=0.0, seed=1) for question in given]
    return await asyncio.gather(
        *(run_strategy(strategy, request, backend, [METHOD]) for request in requests)
    )


def accuracy(given: list[Question], results: list[Result]) -> dict[str, float]:
    """Return how many were answered, how many of those are right, and what it took."""
    pairs = zip(given, results, strict=True)
    right = [q.is_right(r.text) for q, r in pairs if r.decision.action != "abstained"]
    return {
        "coverage": len(right) / len(results),
        "selective accuracy": float(np.mean(right)),
        "tokens": sum(result.usage.generated_tokens for result in results),
    }


if __name__ == "__main__":
    main()
