"""How many tokens the model is given for a conversation."""

from __future__ import annotations

from dataclasses import replace

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.codec import with_tool_descriptions
from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.records import Conversation


async def count_tokens(backend: Backend, conversation: Conversation) -> int:
    """Return the tokens of a conversation in the chat template, those of its tools included.

    None for no messages. A part of a conversation that the template refuses, since it begins with
    an answer or has two questions in a row, counts as so many turns of a user, each by itself:
    rather more than it takes than less.
    """
    if not conversation.messages:
        return 0
    try:
        return len(await backend.encode_chat(conversation))
    except InvalidRequestError:
        return sum([len(await backend.encode_chat(one)) for one in _turns(conversation)])


def _turns(conversation: Conversation) -> list[Conversation]:
    """Return each message as a conversation of its own, the first with the tools."""
    texts = with_tool_descriptions(conversation.messages, ())
    turns = [({"role": "user", "content": one["content"]},) for one in texts]
    tools = [conversation.tools, *[()] * (len(turns) - 1)]
    return [
        replace(conversation, messages=turn, tools=own, continues=False)
        for turn, own in zip(turns, tools, strict=True)
    ]
