"""The configuration file: a model, its scores, and what to do about them, as YAML or a dict.

generator: {type: vllm, model: smollm2, gpu_memory_utilization: 0.9}
sampling: {temperature: 0.7, max_tokens: 128}
scorer: {type: [entropy, perplexity]}
strategy:
type: retry
when: perplexity > 0.6
strategy: {type: best_of_n, n: 8}
uncertain_when: perplexity > 0.6 or entropy > 2
on_high_uncertainty: abstain
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from tenacity import stop_after_attempt

from uq_llm_integrations.decoding.abstain import Abstain, Action
from uq_llm_integrations.decoding.boundaries import Boundary
from uq_llm_integrations.decoding.condition_text import parse_condition
from uq_llm_integrations.decoding.conditions import Condition
from uq_llm_integrations.decoding.retry import Retry, RetryErrors
from uq_llm_integrations.decoding.steps import Stepwise
from uq_llm_integrations.decoding.strategies import BestOfN, SelfConsistency, Single
from uq_llm_integrations.decoding.wishes import Strategy
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import EarlyStop
from uq_llm_integrations.scoring.methods import DEFAULT_METHODS, check_methods


def _condition(value: Any) -> Any:
    return parse_condition(value) if isinstance(value, str) else value


When = Annotated[Condition, BeforeValidator(_condition)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    def given(self, *left_out: str) -> dict[str, Any]:
        """Return the options that were set, so that the defaults stay in one place."""
        names = self.model_fields_set - {"type", *left_out}
        return {name: getattr(self, name) for name in names}


class BoundarySection(_Section):
    """Where a step ends."""

    strings: tuple[str, ...] | None = None
    pattern: str | None = None
    max_tokens: int | None = None
    thinking: tuple[str, str] | None = None


class _Buildable(_Section):
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


class GeneratorSection(BaseModel):
    """Where tokens come from; every further option is an argument of the engine."""

    model_config = ConfigDict(extra="allow")

    type: Literal["vllm"] = "vllm"
    model: str


class ScorerSection(_Section):
    """The methods that answers are scored by."""

    type: str | tuple[str, ...] = DEFAULT_METHODS


class Configuration(_Section):
    """A whole configuration file."""

    generator: GeneratorSection
    scorer: ScorerSection = Field(default_factory=ScorerSection)
    sampling: dict[str, Any] = Field(default_factory=dict)
    chat_template: bool = False
    strategy: StrategySection = Field(default_factory=lambda: SingleSection(type="single"))
    uncertain_when: When | None = None
    on_high_uncertainty: Action | None = None
    abstention_text: str | None = None
    early_stop: EarlyStop | None = None

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any]) -> Configuration:
        """Read a YAML file or a dict; raise ConfigurationError that names what is wrong where."""
        try:
            plain = source if isinstance(source, Mapping) else _loaded(Path(source))
            return cls.model_validate(plain)
        except ValidationError as error:
            wrong = [f"{_path(e['loc'])}: {e['msg']}" for e in error.errors()]
            raise ConfigurationError("the configuration is wrong: " + "; ".join(wrong)) from error

    def llm_arguments(self) -> dict[str, Any]:
        """Return the arguments of the frameworks' classes."""
        named = {"model", "type"}
        engine = {k: v for k, v in self.generator.model_dump().items() if k not in named}
        options = self.given("generator", "scorer", "sampling", "strategy")
        return {
            "model": self.generator.model,
            "engine_args": engine,
            "methods": check_methods(self.scorer.type),
            "strategy": self.strategy.build(),
            **options,
            **self.sampling,
        }


def _loaded(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def _path(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place)) or "the file"
