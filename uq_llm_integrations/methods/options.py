"""How methods are served that need more than a candidate's trace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.entailment import Entailment, ServedJudge, Similarity
from uq_llm_integrations.methods.sentences import Spans, sentences
from uq_llm_integrations.records import Layer

if TYPE_CHECKING:
    from uq_llm_integrations.methods.fitted.density import DensityFit
    from uq_llm_integrations.methods.fitted.head import Head

HEDGES: Mapping[str, float] = {
    "almost certain": 0.95,
    "highly likely": 0.9,
    "very likely": 0.85,
    "probably not": 0.2,
    "probably": 0.7,
    "likely": 0.7,
    "chances are even": 0.5,
    "unlikely": 0.2,
    "not sure": 0.2,
    "i don't know": 0.0,
    "almost no chance": 0.02,
}
"""Expression -> the confidence that it stands for: the medians that readers gave to Kent's words of
estimative probability (https://arxiv.org/abs/2305.14975), and the usual ways of not knowing."""

CONFIDENCE = r"(?i)confiden\w*\D{0,20}?([01]?\.\d+|[01])(?![\d%])"


@dataclass(frozen=True)
class MethodOptions:
    """How methods are served that need more than a candidate's trace.

    Sampling methods compare the candidates of a request among themselves; where there is only one,
    `samples` more are drawn at `temperature`.
    """

    samples: int = 5
    temperature: float = 1.0
    entailment: Entailment = field(default_factory=ServedJudge)
    """What says whether one text follows from another."""
    similarity: Similarity = field(default_factory=ServedJudge)
    """What says how alike two texts are."""
    density: DensityFit | None = None
    """What Mahalanobis distance and its kin were fitted on."""
    head: Head | None = None
    """A supervised head on what is inside the model: an `UncertaintyHead` or a `LuhHead`."""
    claims: Spans = sentences
    """Tells where in an answer each of its claims is, as a pair of a first character and the one
    after the last. It runs on a thread of its own; claims may overlap."""
    layer: Layer = "middle"
    """The layer whose hidden states EigenScore compares."""
    confidence: str = CONFIDENCE
    """Finds the confidence, from 0 to 1, that an answer states, as the one group of a pattern."""
    hedges: Mapping[str, float] = field(default_factory=lambda: HEDGES)
    """Expression -> the confidence that it stands for; the first that an answer holds counts."""

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ConfigurationError(f"samples is {self.samples}; at least 2 can be compared")
        if not self.temperature > 0:
            raise ConfigurationError(
                f"temperature is {self.temperature}; samples differ only above 0"
            )
        if re.compile(self.confidence).groups != 1:
            raise ConfigurationError(f"{self.confidence!r} must have exactly one group")
