"""How methods are served that need more than a candidate's trace."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.identity import Verbatim
from uq_llm_integrations.methods.entailment import Entailment, ServedJudge, Similarity
from uq_llm_integrations.records import Activations, Candidate, Inspection, Layer, Singles

Span = tuple[int, int]
"""First character of a part of a text, and the one after its last."""

Spans = Callable[[str], Sequence[Span]]

_SENTENCE = re.compile(r"""\S.*?(?:[。？！]+|[.?!…]+(?=["'”’)\]]*(?:\s|$))|(?=\n)|$)["'”’)\]]*""")

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

STATED_CONFIDENCE = r"(?i)confiden\w*\D{0,20}?([01]?\.\d+|[01])(?![\d%])"


def sentences(text: str) -> list[Span]:
    """Return the span of each sentence; a line ends one, and the last need not be finished.

    A full stop ends a sentence where white space follows, which the stop of an abbreviation
    (Dr. Who) does, too.
    """
    return [found.span() for found in _SENTENCE.finditer(text)]


class Density(Protocol):
    """Embeddings of training texts, as `DensityFit` keeps them; what is further away is higher."""

    @property
    def layer(self) -> Layer:
        """The layer whose mean hidden state it compares."""

    @property
    def has_background(self) -> bool:
        """Whether the relative distance is known."""

    @property
    def has_ranks(self) -> bool:
        """Whether the ranks among the training texts are known."""

    def mahalanobis(self, embedding: Singles) -> float:
        """Return the distance of an embedding [D]."""

    def relative_mahalanobis(self, embedding: Singles) -> float:
        """Return the distance less that from the background."""

    def rde(self, embedding: Singles) -> float:
        """Return the robust density estimate."""

    def ppl_md(self, embedding: Singles, mean_nll: float) -> float:
        """Return the mean of two ranks, 0 to 1."""


class Head(Protocol):
    """A supervised head: from the model's activations to how likely an answer is to be wrong."""

    @property
    def inspection(self) -> Inspection:
        """What it reads inside the model."""

    @property
    def top_logprobs(self) -> int:
        """How many top log-probabilities of each token it reads."""

    def doubt(self, candidate: Candidate, seen: Activations) -> float:
        """Return the probability from 0 to 1 that the answer is wrong."""


@dataclass(frozen=True)
class MethodOptions:
    """How methods are served that need more than a candidate's trace.

    Sampling methods compare the candidates of a request among themselves; where there is only one,
    `samples` more are generated at `temperature`.

    Example:
        >>> MethodOptions(samples=8, temperature=0.7).samples
        8
    """

    samples: int = 5
    temperature: float = 1.0
    entailment: Entailment = field(default_factory=ServedJudge)
    """What says whether one text follows from another."""
    similarity: Similarity = field(default_factory=ServedJudge)
    """What says how alike two texts are."""
    density: Density | None = None
    """What Mahalanobis distance and its kin were fitted on: a `DensityFit`."""
    head: Head | None = None
    """A supervised head on activations: an `UncertaintyHead` or a `LuhHead`."""
    claims: Spans = sentences
    """Returns where in an answer each of its claims is, as a pair of a first character and the one
    after the last. It runs on a thread of its own; claims may overlap."""
    layer: Layer = "middle"
    """The layer whose hidden states EigenScore compares."""
    stated_confidence: str = STATED_CONFIDENCE
    """Finds the confidence, from 0 to 1, that an answer states, as the one group of a pattern."""
    hedges: Mapping[str, float] = field(default_factory=lambda: HEDGES)
    """Expression -> the confidence that it stands for; the first that an answer holds counts."""

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 2:
            raise ConfigurationError(f"samples is {self.samples!r}; at least 2 can be compared")
        if not isinstance(self.temperature, int | float) or not self.temperature > 0:
            raise ConfigurationError(
                f"temperature is {self.temperature!r}; samples differ only above 0"
            )
        try:
            groups = re.compile(self.stated_confidence).groups
        except (re.error, TypeError) as error:
            raise ConfigurationError(f"stated_confidence is no pattern: {error}") from error
        if groups != 1:
            raise ConfigurationError(f"{self.stated_confidence!r} must have exactly one group")

    def identity_parts(self) -> object:
        """Return all fields; the first of the hedges that an answer holds counts."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return values | {"hedges": Verbatim(dict(self.hedges))}
