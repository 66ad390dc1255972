"""The configuration file's section on strategies: what to draw and which answer to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from tenacity import stop_after_attempt

from uq_llm_integrations.strategies.abstain import Abstain, Action
from uq_llm_integrations.strategies.best_of_n import BestOfN, SelfConsistency, Single
from uq_llm_integrations.strategies.boundaries import Boundary
from uq_llm_integrations.strategies.condition_text import parse_condition
from uq_llm_integrations.strategies.conditions import Condition
from uq_llm_integrations.strategies.retry import Retry, RetryErrors
from uq_llm_integrations.strategies.stepwise import Stepwise
from uq_llm_integrations.strategies.wishes import Strategy


def _condition(value: Any) -> Any:
    return parse_condition(value) if isinstance(value, str) else value


When = Annotated[
    Condition,
    BeforeValidator(_condition),
    WithJsonSchema({"type": "string", "examples": ["perplexity > 0.6 or entropy > 2"]}),
]


class Section(BaseModel):
    """A part of the file in which every option must be known."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    def given(self, *left_out: str) -> dict[str, Any]:
        """Return the options that were set, so that the defaults stay in one place."""
        names = self.model_fields_set - {"type", *left_out}
        return {name: getattr(self, name) for name in names}


class BoundarySection(Section):
    """Where a step ends."""

    strings: tuple[str, ...] | None = None
    pattern: str | None = None
    max_tokens: int | None = None
    thinking: tuple[str, str] | None = None


class _Buildable(Section):
    makes: ClassVar[Callable[..., Strategy]]

    def build(self) -> Strategy:
        """Return the strategy that the section describes."""
        options = self.given("strategy", "boundary", "attempts")
        if (inner := getattr(self, "strategy", None)) is not None:
            options["strategy"] = inner.build()
        if (boundary := getattr(self, "boundary", None)) is not None:
            options["boundary"] = Boundary(**boundary.given())
        if (attempts := getattr(self, "attempts", None)) is not None:
            options["stop"] = stop_after_attempt(attempts)
        return self.makes(**options)


class SingleSection(_Buildable):
    """One round of samples."""

    makes = Single
    type: Literal["single"]


class BestOfNSection(_Buildable):
    """The best of N."""

    makes = BestOfN
    type: Literal["best_of_n"]
    n: int | None = None
    by: str | None = None
    method: str | None = None
    power: float | None = None
    settle: bool | None = None
    wave: int | None = None
    regret: float | None = None


class SelfConsistencySection(_Buildable):
    """The most frequent answer."""

    makes = SelfConsistency
    type: Literal["self_consistency"]
    n: int | None = None
    method: str | None = None
    settle: float | None = None
    wave: int | None = None
    give_up: float | None = None


class StepwiseSection(_Buildable):
    """The best of several next steps."""

    makes = Stepwise
    type: Literal["stepwise"]
    n: int | None = None
    by: str | None = None
    boundary: BoundarySection | None = None
    branch_when: When | None = None
    max_steps: int | None = None
    token_budget: int | None = None


class _Wrapping(_Buildable):
    strategy: StrategySection = Field(default_factory=lambda: SingleSection(type="single"))


class RetrySection(_Wrapping):
    """Again, while a condition holds."""

    makes = Retry
    type: Literal["retry"]
    when: When
    attempts: int | None = Field(default=None, ge=1)
    temperatures: tuple[float, ...] = ()


class RetryErrorsSection(_Wrapping):
    """Again, where the engine failed."""

    makes = RetryErrors
    type: Literal["retry_errors"]
    attempts: int | None = Field(default=None, ge=1)


class AbstainSection(_Wrapping):
    """A note, another text, or an error, where a condition holds."""

    makes = Abstain
    type: Literal["abstain"]
    when: When
    action: Action | None = None
    text: str | None = None


StrategySection = Annotated[
    SingleSection
    | BestOfNSection
    | SelfConsistencySection
    | StepwiseSection
    | RetrySection
    | RetryErrorsSection
    | AbstainSection,
    Field(discriminator="type"),
]
