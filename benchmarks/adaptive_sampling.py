"""What further samples are worth, and what is saved by generating only those that can matter.

The capitals of 174 countries, by the demo model: greedy, best of 16 and self-consistency of 16
with all samples at once, and both stopped early. Accuracy with its 95% bootstrap interval
over the questions, and tokens generated. Settings were chosen on samples of another seed.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from benchmarks.capitals import Question, interval, questions, start
from benchmarks.report import conclude
from uq_llm_integrations import (
    BestOfN,
    SelfConsistency,
    Single,
    VLLMEngineBackend,
    run_strategy,
)
from uq_llm_integrations.strategies.base import Strategy

N, TEMPERATURE, SEED = 16, 0.5, 1000

FORMS: dict[str, tuple[Strategy, float]] = {
    "greedy": (Single(), 0.0),
    "best of 16": (BestOfN(N, "maxprob", settle=False), TEMPERATURE),
    "best of 16, early stop": (BestOfN(N, "maxprob", wave=3, regret=0.5), TEMPERATURE),
    "self-consistency of 16": (SelfConsistency(N, settle=None), TEMPERATURE),
    "self-consistency of 16, early stop": (
        SelfConsistency(N, settle=0.7, wave=3, give_up=0.25),
        TEMPERATURE,
    ),
}


def main() -> None:
    """Measure and conclude."""
    backend = start()
    given = questions(backend)
    figures, right = {}, {}
    for name, (strategy, temperature) in FORMS.items():
        started = time.perf_counter()
        right[name], tokens = backend.run(answered(backend, given, strategy, temperature))
        figures[name] = {
            "accuracy": float(right[name].mean()),
            "interval": interval(right[name]),
            "tokens": tokens,
            "seconds": time.perf_counter() - started,
        }
        print(name, figures[name], flush=True)
    backend.close()
    goals = {}
    for form in ("best of 16", "self-consistency of 16"):
        early = f"{form}, early stop"
        change = interval(right[early] - right[form])
        figures[f"change of accuracy, {early}"] = {"interval": change}
        print(f"{early}: accuracy changes by {change[0]:+.3f} to {change[1]:+.3f}")
        saved = 1 - figures[early]["tokens"] / figures[form]["tokens"]
        goals[f"tokens saved, {early}"] = (0.6, saved)
        goals[f"upper end of the change of accuracy, {early}"] = (0.0, change[1])
        better = figures[early]["accuracy"] / figures["greedy"]["accuracy"]
        goals[f"accuracy / greedy's, {early}"] = (1.0, better)
    conclude("adaptive_sampling", figures, goals)


async def answered(
    backend: VLLMEngineBackend, given: list[Question], strategy: Strategy, temperature: float
) -> tuple[np.ndarray[Any, Any], int]:
    """Return which questions were answered right, and the tokens generated."""
    requests = [question.request(temperature=temperature, seed=SEED) for question in given]
    results = await asyncio.gather(
        *(run_strategy(strategy, request, backend, ["perplexity"]) for request in requests)
    )
    right = [q.is_right(result.text) for q, result in zip(given, results, strict=True)]
    return np.array(right, float), sum(result.usage.generated_tokens for result in results)


if __name__ == "__main__":
    main()
