"""From LlamaIndex's messages to what is asked, and from replies to its responses: pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection

from uq_llm_integrations.adapters.chat import ReplyPiece, ScoredReply
from uq_llm_integrations.chat.reply import Reply, ToolCall
from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.records import Conversation, Result

_ROLES = {MessageRole.DEVELOPER: "system", MessageRole.CHATBOT: "assistant"}


def conversation_of(
    messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]] = ()
) -> Conversation:
    """Return messages and tools in the shape of OpenAI's API."""
    return Conversation(tuple(map(openai_message, messages)), tuple(tools))


def openai_message(message: ChatMessage) -> dict[str, Any]:
    """Return a message as a dict; its reasoning and what is in `additional_kwargs` stay out.

    Raises InvalidRequestError for anything but text and tool calls.
    """
    texts, calls = [], []
    for block in message.blocks:
        match block:
            case TextBlock():
                texts.append(block.text)
            case ToolCallBlock():
                calls.append(_openai_call(block))
            case ThinkingBlock():
                continue
            case _:
                raise InvalidRequestError(
                    f"content of type {block.block_type!r} is not served; allowed is text"
                )
    role = _ROLES.get(message.role, message.role.value)
    plain: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    if calls:
        plain["tool_calls"] = calls
    if role == "tool":
        plain["tool_call_id"] = message.additional_kwargs.get("tool_call_id")
    return plain


def chat_response(
    scored: ScoredReply, result: Result, others: Sequence[ScoredReply], model: str
) -> ChatResponse:
    """Return a finished reply. Its scores are in `additional_kwargs`, never on the message."""
    return ChatResponse(
        message=chat_message(scored.reply),
        additional_kwargs=_told(scored, result),
        logprobs=log_probs(scored.logprobs),
        raw=_raw([scored, *others], result, model),
    )


def completion_response(
    scored: ScoredReply, result: Result, others: Sequence[ScoredReply], model: str
) -> CompletionResponse:
    """Return a finished text."""
    return CompletionResponse(
        text=scored.reply.content,
        additional_kwargs=_told(scored, result),
        logprobs=log_probs(scored.logprobs),
        raw=_raw([scored, *others], result, model),
    )


def chat_message(reply: Reply) -> ChatMessage:
    """Return a reply as a message of blocks: reasoning, text, calls."""
    blocks: list[Any] = [ThinkingBlock(content=reply.reasoning)] if reply.reasoning else []
    if reply.content or not reply.tool_calls:
        blocks.append(TextBlock(text=reply.content))
    blocks += [
        ToolCallBlock(tool_call_id=one.id, tool_name=one.name, tool_kwargs=_arguments(one))
        for one in reply.tool_calls
    ]
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)


def piece_kwargs(piece: ReplyPiece) -> dict[str, Any]:
    """Return what a piece of a stream tells of its tokens, and the last one of the whole."""
    if piece.whole is None or piece.result is None:
        return {"uncertainty": piece.uncertainty} if piece.uncertainty else {}
    return _told(piece.whole, piece.result)


def log_probs(entries: Sequence[Mapping[str, Any]] | None) -> list[list[LogProb]] | None:
    """Return for each token itself, and then its alternatives."""
    if entries is None:
        return None
    return [[_log_prob(one), *map(_log_prob, one["top_logprobs"])] for one in entries]


def selections(message: ChatMessage) -> list[ToolSelection]:
    """Return the calls that a message asks for."""
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "",
            tool_name=block.tool_name,
            tool_kwargs=block.tool_kwargs if isinstance(block.tool_kwargs, dict) else {},
        )
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def _told(scored: ScoredReply, result: Result) -> dict[str, Any]:
    usage = result.usage
    return {
        "uncertainty": scored.uncertainty,
        "finish_reason": scored.candidate.finish_reason,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.generated_tokens,
        "total_tokens": usage.prompt_tokens + usage.generated_tokens,
    }


def _raw(replies: Sequence[ScoredReply], result: Result, model: str) -> dict[str, Any]:
    """Return all candidates, the best first."""
    return {
        "model": model,
        "candidates": [
            {"text": one.candidate.text, "uncertainty": one.uncertainty} for one in replies
        ],
        "usage": {
            "prompt_tokens": result.usage.prompt_tokens,
            "completion_tokens": result.usage.generated_tokens,
            "total_tokens": result.usage.prompt_tokens + result.usage.generated_tokens,
        },
    }


def _openai_call(block: ToolCallBlock) -> dict[str, Any]:
    arguments = block.tool_kwargs
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    function = {"name": block.tool_name, "arguments": text}
    return {"id": block.tool_call_id or "", "type": "function", "function": function}


def _arguments(call: ToolCall) -> dict[str, Any] | str:
    try:
        parsed = json.loads(call.arguments or "{}")
    except ValueError:
        return call.arguments
    return parsed if isinstance(parsed, dict) else call.arguments


def _log_prob(entry: Mapping[str, Any]) -> LogProb:
    return LogProb(token=entry["token"], logprob=entry["logprob"], bytes=entry["bytes"])
