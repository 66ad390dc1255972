"""From scored replies to LlamaIndex's responses: pure."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
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

from uq_llm_integrations.chat.exchange import ReplyPiece, ScoredReply
from uq_llm_integrations.chat.reply import Reply, ToolCall
from uq_llm_integrations.llama_index.messages import openai_call
from uq_llm_integrations.records import Result
from uq_llm_integrations.report.metadata import token_usage


def chat_response(
    result: Result, replies: Sequence[ScoredReply], model: str, calls: int | None = None
) -> ChatResponse:
    """Return the best reply as a message, with no more than that many calls.

    Its scores are in `additional_kwargs` and never on the message, which comes into later prompts.
    """
    return ChatResponse(
        message=chat_message(replies[0].reply, calls),
        additional_kwargs=_told(replies[0], result),
        logprobs=log_probs(replies[0].logprobs),
        raw=_raw(result, replies, model),
    )


def completion_response(
    result: Result, replies: Sequence[ScoredReply], model: str
) -> CompletionResponse:
    """Return the best reply as a text."""
    return CompletionResponse(
        text=replies[0].reply.content,
        additional_kwargs=_told(replies[0], result),
        logprobs=log_probs(replies[0].logprobs),
        raw=_raw(result, replies, model),
    )


async def growing(
    pieces: AsyncGenerator[ReplyPiece, None],
) -> AsyncGenerator[tuple[ReplyPiece, Reply], None]:
    """Yield each piece with the reply so far; closing this closes the stream of pieces."""
    content = reasoning = ""
    async with aclosing(pieces):
        async for piece in pieces:
            content += piece.part.content
            reasoning += piece.part.reasoning
            yield piece, piece.whole.reply if piece.whole else Reply(content, reasoning or None)


def chat_piece(
    piece: ReplyPiece, reply: Reply, model: str, calls: int | None = None
) -> ChatResponse:
    """Return the reply so far; calls are shown once they are whole, in the last response."""
    if piece.whole is not None and piece.result is not None:
        last = chat_response(piece.result, [piece.whole], model, calls)
    else:
        last = ChatResponse(
            message=chat_message(reply),
            logprobs=log_probs(piece.logprobs),
            additional_kwargs=_told_so_far(piece),
        )
    last.delta = piece.part.content
    if piece.part.reasoning:
        last.additional_kwargs["thinking_delta"] = piece.part.reasoning
    return last


def completion_piece(piece: ReplyPiece, reply: Reply, model: str) -> CompletionResponse:
    """Return the text so far."""
    if piece.whole is not None and piece.result is not None:
        last = completion_response(piece.result, [piece.whole], model)
    else:
        last = CompletionResponse(
            text=reply.content,
            logprobs=log_probs(piece.logprobs),
            additional_kwargs=_told_so_far(piece),
        )
    last.delta = piece.part.content
    return last


def chat_message(reply: Reply, calls: int | None = None) -> ChatMessage:
    """Return a reply as a message of blocks: reasoning, text, calls.

    The calls are in `additional_kwargs` as well, where LlamaIndex's programs and memories look.
    """
    reply = replace(reply, tool_calls=reply.tool_calls[:calls])
    blocks: list[Any] = [ThinkingBlock(content=reply.reasoning)] if reply.reasoning else []
    if reply.content or not reply.tool_calls:
        blocks.append(TextBlock(text=reply.content))
    asked = [
        ToolCallBlock(tool_call_id=one.id, tool_name=one.name, tool_kwargs=_arguments(one))
        for one in reply.tool_calls
    ]
    return ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=blocks + asked,
        additional_kwargs={"tool_calls": list(map(openai_call, asked))} if asked else {},
    )


def log_probs(entries: Sequence[Mapping[str, Any]] | None) -> list[list[LogProb]] | None:
    """Return for each token itself, and then its alternatives."""
    if entries is None:
        return None
    return [[_log_prob(one), *map(_log_prob, one["top_logprobs"])] for one in entries]


def _told(scored: ScoredReply, result: Result) -> dict[str, Any]:
    return {
        "uncertainty": scored.uncertainty,
        "finish_reason": scored.candidate.finish_reason,
        **token_usage([result]),
    }


def _told_so_far(piece: ReplyPiece) -> dict[str, Any]:
    return {"uncertainty": piece.uncertainty} if piece.uncertainty else {}


def _raw(result: Result, replies: Sequence[ScoredReply], model: str) -> dict[str, Any]:
    """Return all candidates, the best first."""
    candidates = [{"text": one.candidate.text, "uncertainty": one.uncertainty} for one in replies]
    return {"model": model, "candidates": candidates, "usage": token_usage([result])}


def _arguments(call: ToolCall) -> dict[str, Any] | str:
    try:
        parsed = json.loads(call.arguments or "{}")
    except ValueError:
        return call.arguments
    return parsed if isinstance(parsed, dict) else call.arguments


def _log_prob(entry: Mapping[str, Any]) -> LogProb:
    return LogProb(token=entry["token"], logprob=entry["logprob"], bytes=entry["bytes"])
