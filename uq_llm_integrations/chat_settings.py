"""What chat classes are set up with beside what all classes are."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from uq_llm_integrations.settings import UncertaintySettings


class ChatSettings(UncertaintySettings):
    """The fields of chat classes. No framework's types occur here."""

    chat_template: bool = True
    tool_parser: str | None = None
    """vLLM's name of the format in which the model calls tools; by default the template tells."""
    reasoning_parser: str | None = None
    """vLLM's name of the format in which the model reasons, where it does."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further values for the chat template (`enable_thinking=False`, ...)."""
    logprobs: bool = False
    """Whether to give log-probabilities in the shape of OpenAI's API."""

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities are given in the shape of OpenAI's API."""
        return self.logprobs or self.top_logprobs > 0

    @property
    def _settings(self) -> dict[str, Any]:
        return super()._settings | {
            "tool_parser": self.tool_parser,
            "reasoning_parser": self.reasoning_parser,
            "chat_template_kwargs": self.chat_template_kwargs,
            "logprobs": self.logprobs,
        }
