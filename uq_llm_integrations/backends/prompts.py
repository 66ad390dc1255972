"""Prompts as tokens, by what is said of the control tokens whose names are in them."""

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.records import Conversation


async def encode_prompt(
    backend: Backend, text: str, *, chat: bool, allow_special_tokens: bool | None
) -> tuple[int, ...]:
    """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template.

    Unless it is said, names of control tokens are these tokens in a prompt by itself, which is its
    author's own template, and text in the chat template.
    """
    if chat and allow_special_tokens:
        turn = {"role": "user", "content": text}
        return await backend.encode_chat(Conversation((turn,), allow_special_tokens=True))
    if not chat and allow_special_tokens is False:
        return await backend.encode_data(text)
    return await backend.encode(text, chat=chat)


async def encode_given(backend: Backend, text: str, *, is_data: bool) -> tuple[int, ...]:
    """Return the token ids of text that follows other text."""
    if is_data:
        return await backend.encode_data(text, continues=True)
    return await backend.encode_continuation(text)
