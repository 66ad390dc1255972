"""From LlamaIndex's messages and tools to what is asked, and the calls that a message has: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection

from uq_llm_integrations.chat.exchange import Turn
from uq_llm_integrations.chat.reading import choice_of
from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.records import Conversation

TURN = ("tools", "tool_choice", "allow_parallel_tool_calls", "response_schema", "stop")
"""Arguments of a call that say what is asked, rather than how the answer is drawn."""

_ROLES = {
    MessageRole.DEVELOPER: "system",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
}


def turn_of(
    messages: Sequence[ChatMessage], asked: Mapping[str, Any], written: str | None = None
) -> Turn:
    """Return what is asked; a `written` prompt takes the place of the chat template.

    Raises InvalidRequestError for tools where there is no chat template to tell of them.
    """
    stop, tools = asked.get("stop") or (), asked.get("tools") or ()
    if tools and written is not None:
        raise InvalidRequestError("tools need the model's chat template: chat_template=True")
    conversation = Conversation(() if written else tuple(map(openai_message, messages)), (*tools,))
    return Turn(
        conversation,
        (stop,) if isinstance(stop, str) else tuple(stop),
        choice_of(asked.get("tool_choice")),
        asked.get("response_schema"),
        written,
    )


def openai_message(message: ChatMessage) -> dict[str, Any]:
    """Return a message as a dict; what is in its `additional_kwargs` stays out.

    Reasoning stands where chat templates look for it. Raises InvalidRequestError for anything but
    text, reasoning and tool calls.
    """
    texts, thoughts, calls = [], [], []
    for block in message.blocks:
        match block:
            case TextBlock():
                texts.append(block.text)
            case ThinkingBlock():
                thoughts.append(block.content or "")
            case ToolCallBlock():
                calls.append(openai_call(block))
            case CachePoint():
                continue
            case _:
                raise InvalidRequestError(
                    f"content of type {block.block_type!r} is not served; allowed is text"
                )
    role = _ROLES.get(message.role, message.role.value)
    plain: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    optional: dict[str, Any] = {"reasoning_content": "".join(thoughts), "tool_calls": calls}
    if role == "tool":
        optional["tool_call_id"] = message.additional_kwargs.get("tool_call_id")
    return plain | {name: one for name, one in optional.items() if one}


def openai_call(block: ToolCallBlock) -> dict[str, Any]:
    """Return a call as a dict."""
    arguments = block.tool_kwargs
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    function = {"name": block.tool_name, "arguments": text}
    return {"id": block.tool_call_id or "", "type": "function", "function": function}


def selections(message: ChatMessage) -> list[ToolSelection]:
    """Return the calls that a message asks for; arguments that are no object become none."""
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "",
            tool_name=block.tool_name,
            tool_kwargs=block.tool_kwargs if isinstance(block.tool_kwargs, dict) else {},
        )
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]
