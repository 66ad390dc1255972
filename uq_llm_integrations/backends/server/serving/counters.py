"""The plugin's figures in `/metrics`, beside vLLM's own."""

from __future__ import annotations

from functools import cache
from typing import Any

BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
"""Upper bounds of mean entropies, in nats."""


class Metrics:
    """Counts answers by what is known of them."""

    def __init__(self, model: str, collectors: tuple[Any, Any] | None = None) -> None:
        entropy, answers = collectors or _collectors()
        self._entropy = entropy.labels(model_name=model)
        self._exact = answers.labels(model_name=model, exact="true")
        self._inexact = answers.labels(model_name=model, exact="false")

    def count(self, mean_entropy: float | None, is_exact: bool) -> None:
        """Count an answer whose last token is known."""
        (self._exact if is_exact else self._inexact).inc()
        if mean_entropy is not None:
            self._entropy.observe(mean_entropy)


@cache
def metrics_of(model: str) -> Metrics:
    """Return the metrics of a served model."""
    return Metrics(model)


@cache
def _collectors() -> tuple[Any, Any]:
    """Return the collectors; a process may have each but once."""
    from prometheus_client import Counter, Histogram

    entropy = Histogram(
        "uq_llm:answer_mean_entropy_nats",
        "Histogram of the mean entropy of an answer's tokens in nats.",
        labelnames=["model_name"],
        buckets=BUCKETS,
    )
    answers = Counter(
        "uq_llm:answers",
        "Number of answers by whether their statistics are exact.",
        labelnames=["model_name", "exact"],
    )
    return entropy, answers
