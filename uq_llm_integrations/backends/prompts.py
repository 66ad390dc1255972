"""From a prompt's text to its tokens, the same for every backend with a tokenizer."""

from __future__ import annotations

from typing import Any

from uq_llm_integrations.errors import ConfigurationError


def encoded_prompt(tokenizer: Any, text: str, *, chat: bool, model: str) -> tuple[int, ...]:
    """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template."""
    if not chat:
        return tuple(tokenizer.encode(text)) if text else ()
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigurationError(f"the tokenizer of {model} has no chat template")
    turns = [{"role": "user", "content": text}]
    return tuple(
        tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    )
