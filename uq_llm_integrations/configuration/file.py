"""The configuration file: a model, its scores, and what to do about them, as YAML or a dict.

generator: {type: vllm, model: smollm2, gpu_memory_utilization: 0.9}
sampling: {temperature: 0.7, max_tokens: 128}
scorer: {type: [entropy, perplexity]}
strategy: {type: retry, when: perplexity > 0.6, strategy: {type: best_of_n, n: 8}}
uncertain_when: perplexity > 0.6 or entropy > 2
on_high_uncertainty: abstain
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from uq_llm_integrations.configuration.assessment import MethodOptionsSection
from uq_llm_integrations.configuration.generator import GeneratorSection
from uq_llm_integrations.configuration.secrets import with_secrets
from uq_llm_integrations.configuration.strategies import (
    Section,
    SingleSection,
    StrategySection,
    When,
)
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import DEFAULT_METHODS, check_methods
from uq_llm_integrations.records import EarlyStop
from uq_llm_integrations.strategies.abstain import Action


class ScorerSection(Section):
    """The methods that answers are scored by."""

    type: str | tuple[str, ...] = DEFAULT_METHODS


class ChatSection(Section):
    """What only chat classes have, see `ChatSettings`."""

    tool_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    logprobs: bool = False


class Configuration(Section):
    """A whole configuration file."""

    generator: GeneratorSection
    scorer: ScorerSection = Field(default_factory=ScorerSection)
    method_options: MethodOptionsSection | None = None
    sampling: dict[str, Any] = Field(default_factory=dict)
    chat_template: bool = False
    chat: ChatSection | None = None
    token_scores: bool = False
    strategy: StrategySection = Field(default_factory=lambda: SingleSection(type="single"))
    uncertain_when: When | None = None
    on_high_uncertainty: Action | None = None
    abstention_text: str | None = None
    early_stop: EarlyStop | None = None
    stop_if: When | None = None

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any]) -> Configuration:
        """Read a YAML file or a dict; raise ConfigurationError that names what is wrong where."""
        try:
            plain = source if isinstance(source, Mapping) else _loaded(Path(source))
            return cls.model_validate(with_secrets(plain))
        except ValidationError as error:
            wrong = [f"{_path(e['loc'])}: {e['msg']}" for e in error.errors()]
            raise ConfigurationError("the configuration is wrong: " + "; ".join(wrong)) from error

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that answers are scored by."""
        return check_methods(self.scorer.type)

    def build_method_options(self) -> MethodOptions | None:
        """Return how methods are served that need more than a trace."""
        return self.method_options.build() if self.method_options else None

    def llm_arguments(self) -> dict[str, Any]:
        """Return the arguments of the frameworks' classes."""
        options = self.given(
            "generator", "scorer", "sampling", "strategy", "method_options", "chat"
        )
        return {
            **self.generator.llm_arguments(),
            "methods": self.methods,
            "method_options": self.build_method_options(),
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
