"""What LangChain asks of a chat model's abilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.language_models import ModelProfile

from uq_llm_integrations.backends.base import Capabilities


def profile_of(
    capabilities: Capabilities, engine_args: Mapping[str, Any], reasoning_parser: str | None
) -> ModelProfile:
    """Return the profile; what is not known before the engine runs is left out."""
    profile = ModelProfile(
        text_inputs=True,
        text_outputs=True,
        tool_calling=True,
        tool_choice=True,
        tool_call_streaming=True,
        reasoning_output=reasoning_parser is not None,
        # Agents take it to mean an answer by schema while tools are bound. A grammar allows only
        # one of them; without the claim they make the schema a tool, which works.
        structured_output=False,
        temperature=True,
    )
    context = capabilities.context_length or engine_args.get("max_model_len")
    if context:
        profile["max_input_tokens"] = context
    return profile
