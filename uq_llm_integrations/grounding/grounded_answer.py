"""What is known of how an answer rests on its sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.records import Decision, Score


@dataclass(frozen=True)
class SourceSupport(PlainRecord):
    """What one source contributes to an answer of T tokens; higher is more support."""

    index: int
    """Its place among the sources, from 0."""
    name: str | None
    contribution: float
    """Nats: the mean of `alone` and `loss`."""
    alone: float
    """Nats: log p(answer | this source only) - log p(answer | none)."""
    loss: float
    """Nats: log p(answer | all sources) - log p(answer | all but this one)."""
    by_token: tuple[float, ...]
    """[T] the contribution to each token; they add up to that to the answer."""


@dataclass(frozen=True)
class GroundingCost(PlainRecord):
    """What it took beyond the answer itself."""

    passes: int
    """Forward passes over a prompt and the answer, nearly all at the same time."""
    prompt_tokens: int
    """Tokens of the prompts of all passes, with those that were in the prefix cache."""
    scored_tokens: int
    """Tokens of the answer, counted once a pass."""
    ratio: float
    """All these tokens, as a multiple of those that generating the answer from all sources took."""
    seconds: float
    cached_tokens: int = 0
    """Tokens of the prompts that the engine took from its prefix cache; 0 where none is known."""


@dataclass(frozen=True)
class GroundedAnswer(PlainRecord):
    """How far an answer of T tokens rests on its sources, and on which of them.

    `to_dict` gives plain data for JSON, and `from_dict` reads it.

    Example:
        >>> from uq_llm_integrations import ScriptedBackend, UncertaintyModel
        >>> model = UncertaintyModel(ScriptedBackend(["Oslo"]))
        >>> grounded = model.ground("Oslo", ["Oslo is the capital."], "What is the capital?")
        >>> grounded.support, grounded.is_grounded  # a scripted model never reads its prompt
        (0.0, False)
    """

    answer: str
    """The answer, also where an abstention stands in its place."""
    tokens: tuple[str, ...]
    """[T] the text of each token."""
    support: float | None
    """Nats: the highest contribution of a source, 0 without sources; None where there is a `reason`
    why it is not known."""
    logprob: float | None
    """Nats: log p(answer | all sources)."""
    logprob_without: float | None
    """Nats: log p(answer | none)."""
    by_token: tuple[float, ...]
    """[T] log p(token | all sources) - log p(token | none): what they add together."""
    sources: tuple[SourceSupport, ...]
    """In the order in which they were given."""
    main: int | None
    """The index of the source that contributes most; None where none contributes."""
    is_grounded: bool | None
    """Whether a source has at least the least support; None where it is not known."""
    least_support: float
    reason: str | None
    """Why the answer is not grounded, or the support not known."""
    decision: Decision
    cost: GroundingCost | None
    """None where the passes were not made, or failed."""

    @classmethod
    def unknown(cls, answer: str, reason: str, least_support: float) -> Self:
        """Return what there is of an answer whose support is not known."""
        decision = Decision("accepted", f"support < {least_support:g}", True)
        return cls(
            answer, (), None, None, None, (), (), None, None, least_support, reason,
            decision, None,
        )  # fmt: skip  # its fields in their order

    @property
    def text(self) -> str:
        """The answer, or what an abstention says in its place."""
        return self.answer if self.decision.text is None else self.decision.text

    @property
    def score(self) -> Score:
        """Minus the support, as a score is: higher is less supported; for `calibration`."""
        if self.support is None:
            return Score("support", reason=self.reason)
        return Score("support", -self.support)

    @property
    def ranked(self) -> tuple[SourceSupport, ...]:
        """The sources, the one that contributes most first; equals in their order."""
        return tuple(sorted(self.sources, key=lambda one: -one.contribution))
