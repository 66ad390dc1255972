"""How methods are served that need more than a candidate's trace."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

from uq_llm_integrations.backends.sampling_values import GREATEST_NUMBER
from uq_llm_integrations.calibration.calibration_file import Calibration
from uq_llm_integrations.errors import ConfigurationError, described
from uq_llm_integrations.identity import Verbatim
from uq_llm_integrations.methods.entailment import Entailment, ServedJudge, Similarity
from uq_llm_integrations.methods.hedging import HEDGES
from uq_llm_integrations.methods.words import words
from uq_llm_integrations.records import Activations, Candidate, Inspection, Layer, Singles

Span = tuple[int, int]
"""First character of a part of a text, and the one after its last."""

Spans = Callable[[str], Sequence[Span]]

FindSpan = Callable[[str], Span | None]
"""Returns where the one part of a text is that counts, None where there is none."""

# A run of stops is looked at once: where it ends no sentence, no shorter part of it does.
_ENDS = r"""(?=["'”’)\]]*(?:\s|$))"""
_SENTENCE = re.compile(
    rf"""(?:[.?!…]{{2,}}+{_ENDS}"""
    rf"""|\S.*?(?:[。？！]+|(?<![.?!…])[.?!…]++{_ENDS}|(?=\n)|$))["'”’)\]]*"""
)


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
    span: str | FindSpan | None = None
    """Finds the part of an answer that the `span_` methods score: a pattern, whose first match it
    is, or the one group of that match; or a function that returns the part's first character and
    the one after its last, or None. It runs on a thread of its own."""
    layer: Layer = "middle"
    """The layer whose hidden states EigenScore compares."""
    calibration: Calibration | None = None
    """What makes a confidence of scores; the settings' `calibration` is the usual way to it."""
    stated_confidence: str | None = None
    """Finds where an answer states its confidence, as the one group of a pattern; without one, what
    follows `Confidence:` is read, or stands by such a word: 90% sure."""
    hedges: Mapping[str, float] = field(default_factory=lambda: HEDGES)
    """Expression -> the confidence that it stands for. The longest counts, in whole words; one that
    is denied, or several that differ, say nothing for certain."""

    def __post_init__(self) -> None:
        for name in _PARTS:
            _check_part(name, getattr(self, name))
        if not callable(self.claims):
            raise ConfigurationError(f"claims is {described(self.claims)}; it must be a function")
        if self.span is not None and not callable(self.span):
            _check_pattern("span", self.span, (0, 1))
        if self.layer != "middle" and not _is_whole(self.layer):
            raise ConfigurationError(
                f"layer is {described(self.layer)}; allowed are 'middle' and whole numbers"
            )
        if not _is_whole(self.samples) or self.samples < 2:
            raise ConfigurationError(
                f"samples is {described(self.samples)}; at least 2 can be compared"
            )
        if not _is_number(self.temperature) or not 0 < self.temperature <= GREATEST_NUMBER:
            raise ConfigurationError(
                f"temperature is {described(self.temperature)}; samples differ only above 0"
            )
        if self.stated_confidence is not None:
            _check_pattern("stated_confidence", self.stated_confidence, (1,))
        if not isinstance(self.hedges, Mapping):
            raise ConfigurationError(
                f"hedges is {described(self.hedges)}; it must be a mapping to numbers"
            )
        for expression, confidence in self.hedges.items():
            _check_hedge(expression, confidence)

    def identity_parts(self) -> object:
        """Return all fields, the hedges as they were written."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return values | {"hedges": Verbatim(dict(self.hedges))}


_PARTS = {
    "entailment": ("entailments", "ServedJudge(), SentenceEmbeddings() or Classifier(...)"),
    "similarity": ("similarities", "ServedJudge(), SentenceEmbeddings() or Classifier(...)"),
    "density": ("has_background", "DensityFit"),
    "head": ("doubt", "UncertaintyHead or LuhHead"),
    "calibration": ("confidence_of", "Calibration.load(path)"),
}
"""Parts of the options: what each of them must have, and what has it."""


def _check_part(name: str, part: object) -> None:
    needed, ready = _PARTS[name]
    is_left_out = part is None and name in ("density", "head", "calibration")
    if not is_left_out and (isinstance(part, type) or not hasattr(part, needed)):
        raise ConfigurationError(
            f"{name} is {described(part)}; allowed are objects with `{needed}`, such as {ready}"
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_pattern(name: str, pattern: object, groups: tuple[int, ...]) -> None:
    if not isinstance(pattern, str):
        raise ConfigurationError(f"{name} is {described(pattern)}; it must be a pattern")
    try:
        found = re.compile(pattern).groups
    except re.error as error:
        raise ConfigurationError(f"{name} is no pattern: {error}") from error
    if found not in groups:
        allowed = "exactly" if groups == (1,) else "at most"
        raise ConfigurationError(f"{name}: {described(pattern)} must have {allowed} one group")


def _check_hedge(expression: object, confidence: object) -> None:
    if not isinstance(expression, str) or not words(expression):
        raise ConfigurationError(
            f"hedges has {described(expression)}; an expression is a text with a word"
        )
    is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    if not (is_number and isinstance(confidence, int | float) and 0.0 <= confidence <= 1.0):
        raise ConfigurationError(
            f"hedges has {described(confidence)} for {described(expression)}; allowed are numbers "
            "from 0 to 1"
        )
