"""From LlamaIndex's messages and tools to a turn, and from replies back: pure translation."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CitableBlock,
    CompletionResponse,
    ContentBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection

from uq_llm_integrations.backends.content_blocks import plain_messages
from uq_llm_integrations.backends.sampling_values import stop_strings
from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.chat.objects import call_arguments
from uq_llm_integrations.chat.parsers import continued, flag_of, tool_choice_of
from uq_llm_integrations.chat.reply import ChatResult, Reply, ReplyPiece, ToolCall, Turn
from uq_llm_integrations.chat.schemas import class_schema, parameters_of
from uq_llm_integrations.chat.tool_specs import tool_specs
from uq_llm_integrations.errors import InvalidAnswerError, InvalidRequestError
from uq_llm_integrations.records import Conversation, JsonObject
from uq_llm_integrations.report.metadata import token_usage

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

TURN = (
    "tools",
    "tool_choice",
    "allow_parallel_tool_calls",
    "response_schema",
    "stop",
    "continue_final_message",
)
"""Arguments of a call that say what is sent, rather than how the answer is sampled."""

_ROLES = {
    MessageRole.DEVELOPER: "system",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.FUNCTION: "tool",
}


def turn_of(
    messages: Sequence[ChatMessage], arguments: Mapping[str, Any], written: str | None = None
) -> Turn:
    """Return the turn that the model is given; a `written` prompt replaces the chat template.

    Raises InvalidRequestError for tools where there is no chat template to describe them.
    """
    specs = tool_specs(arguments.get("tools"))
    if (specs or arguments.get("continue_final_message")) and written is not None:
        what = "tools" if specs else "continue_final_message"
        raise InvalidRequestError(f"{what} needs the model's chat template: chat_template=True")
    conversation = Conversation(() if written else tuple(map(openai_message, messages)), specs)
    if (continues := arguments.get("continue_final_message")) is not None:
        conversation = continued(conversation, continues)
    stop, parallel = arguments.get("stop"), arguments.get("allow_parallel_tool_calls")
    return Turn(
        conversation,
        () if stop is None else stop_strings(stop),
        tool_choice_of(arguments.get("tool_choice")),
        arguments.get("response_schema"),
        written,
        parallel_tool_calls=parallel is None
        or flag_of("allow_parallel_tool_calls", parallel, default=True),
    )


def openai_message(message: ChatMessage) -> JsonObject:
    """Return a message as a dict; only calls are read from its `additional_kwargs`.

    Reasoning stands where chat templates look for it; marks for caches and citations are left out.
    Raises InvalidRequestError for pictures, sound and documents, by their type.
    """
    role, beside = _ROLES.get(message.role, message.role.value), message.additional_kwargs
    texts = [one.text for one in message.blocks if isinstance(one, TextBlock)]
    is_text = len(texts) == len(message.blocks)
    content = "\n".join(texts) if is_text else [_block(one) for one in message.blocks]
    plain: JsonObject = {"role": role, "content": content}
    if role == "tool" and beside.get("tool_call_id"):
        plain["tool_call_id"] = beside["tool_call_id"]
    calls = beside.get("tool_calls")
    if isinstance(calls, list | tuple) and not any(
        isinstance(one, ToolCallBlock) for one in message.blocks
    ):
        plain["tool_calls"] = [dict(one) for one in calls if isinstance(one, Mapping)]
    (ready,) = plain_messages([plain], "\n")
    return dict(ready)


def _block(block: object) -> JsonObject:
    match block:
        case ThinkingBlock():
            return {"type": "thinking", "thinking": block.content or ""}
        case ToolCallBlock():
            return {**openai_call(block)["function"], "id": block.tool_call_id, "type": "tool_call"}
        case CitableBlock():
            return {"type": "citable", "content": [_block(one) for one in block.content]}
    kind = getattr(block, "block_type", type(block).__name__)
    return {"type": kind, "text": getattr(block, "text", None)}


def openai_call(block: ToolCallBlock) -> JsonObject:
    """Return a call as a dict."""
    arguments = block.tool_kwargs
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    function = {"name": block.tool_name, "arguments": text}
    return {"id": block.tool_call_id or "", "type": "function", "function": function}


def openai_tool(tool: BaseTool) -> JsonObject:
    """Return a tool as a dict; LlamaIndex keeps nothing of a schema whose root is a reference."""
    found: JsonObject = tool.metadata.to_openai_tool(skip_length_check=True)
    schema = tool.metadata.fn_schema
    if schema is not None and "properties" not in found["function"]["parameters"]:
        found["function"]["parameters"] = parameters_of(class_schema(schema))
    return found


def selections(
    message: ChatMessage,
    finish_reason: str | None = None,
    uncertainty: Mapping[str, Any] | None = None,
) -> list[ToolSelection]:
    """Return the calls that a message requests, of a response with this finish reason and metadata.

    Raises IncompleteAnswerError where one was cut, and InvalidAnswerError where its arguments are
    no JSON object: without them, LlamaIndex would call the tool with none.
    """
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "",
            tool_name=block.tool_name,
            tool_kwargs=_block_arguments(block, finish_reason, uncertainty),
        )
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def _block_arguments(
    block: ToolCallBlock, finish_reason: str | None, uncertainty: Mapping[str, Any] | None
) -> JsonObject:
    if isinstance(block.tool_kwargs, dict):
        return block.tool_kwargs
    text, call_id = str(block.tool_kwargs), block.tool_call_id or ""
    call = ToolCall(block.tool_name, text, call_id, is_cut=True)
    return call_arguments(call, finish_reason, uncertainty)


def chat_response(answer: ChatResult, model: str) -> ChatResponse:
    """Return the best reply as a message.

    Its scores are in `additional_kwargs` and never on the message, which comes into later prompts.
    """
    return ChatResponse(
        message=chat_message(answer.replies[0].reply),
        additional_kwargs=_metadata(answer),
        logprobs=log_probs(answer.replies[0].logprobs),
        raw=_raw(answer, model),
    )


def completion_response(answer: ChatResult, model: str) -> CompletionResponse:
    """Return the best reply as a text."""
    return CompletionResponse(
        text=answer.text,
        additional_kwargs=_metadata(answer),
        logprobs=log_probs(answer.replies[0].logprobs),
        raw=_raw(answer, model),
    )


async def joined(
    pieces: AsyncGenerator[ReplyPiece, None],
) -> AsyncGenerator[tuple[ReplyPiece, Reply], None]:
    """Yield each piece with the reply so far; closing this closes the stream of pieces."""
    content = reasoning = ""
    async with closed_at_end(pieces) as read:
        async for piece in read:
            content += piece.part.content
            reasoning += piece.part.reasoning
            yield piece, piece.whole.reply if piece.whole else Reply(content, reasoning or None)


def chat_piece(piece: ReplyPiece, reply: Reply, model: str) -> ChatResponse:
    """Return the reply so far; calls are shown once they are whole, in the last response."""
    if piece.whole is not None and piece.result is not None:
        last = chat_response(ChatResult([piece.whole], piece.result), model)
    else:
        last = ChatResponse(
            message=chat_message(reply),
            logprobs=log_probs(piece.logprobs),
            additional_kwargs=_piece_metadata(piece),
        )
    last.delta = piece.part.content
    if piece.part.reasoning:
        last.additional_kwargs["thinking_delta"] = piece.part.reasoning
    return last


def completion_piece(piece: ReplyPiece, reply: Reply, model: str) -> CompletionResponse:
    """Return the text so far."""
    if piece.whole is not None and piece.result is not None:
        last = completion_response(ChatResult([piece.whole], piece.result), model)
    else:
        last = CompletionResponse(
            text=reply.content,
            logprobs=log_probs(piece.logprobs),
            additional_kwargs=_piece_metadata(piece),
        )
    last.delta = piece.part.content
    return last


def chat_message(reply: Reply) -> ChatMessage:
    """Return a reply as a message of blocks: reasoning, text, calls.

    The calls are in `additional_kwargs` as well, where LlamaIndex's programs and memories look.
    """
    blocks: list[ContentBlock] = [ThinkingBlock(content=reply.reasoning)] if reply.reasoning else []
    if reply.content or not reply.tool_calls:
        blocks.append(TextBlock(text=reply.content))
    calls_made = [
        ToolCallBlock(tool_call_id=one.id, tool_name=one.name, tool_kwargs=_arguments(one))
        for one in reply.tool_calls
    ]
    return ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=[*blocks, *calls_made],
        additional_kwargs={"tool_calls": list(map(openai_call, calls_made))} if calls_made else {},
    )


def log_probs(entries: Sequence[Mapping[str, Any]] | None) -> list[list[LogProb]] | None:
    """Return for each token itself, and then its alternatives."""
    if entries is None:
        return None
    return [[_log_prob(one), *map(_log_prob, one["top_logprobs"])] for one in entries]


def _metadata(answer: ChatResult) -> JsonObject:
    return {
        "uncertainty": answer.uncertainty,
        "finish_reason": answer.replies[0].finish_reason,
        **token_usage([answer.result]),
    }


def _piece_metadata(piece: ReplyPiece) -> JsonObject:
    return {"uncertainty": piece.uncertainty} if piece.uncertainty else {}


def _raw(answer: ChatResult, model: str) -> JsonObject:
    """Return all candidates, the best first."""
    rows = ({"text": one.candidate.text, "uncertainty": one.uncertainty} for one in answer.replies)
    return {"model": model, "candidates": list(rows), "usage": token_usage([answer.result])}


def _arguments(call: ToolCall) -> JsonObject | str:
    """Return the arguments, as a text where they are no object: `selections` says so."""
    try:
        return call_arguments(call, None)
    except InvalidAnswerError:
        return call.arguments


def _log_prob(entry: Mapping[str, Any]) -> LogProb:
    return LogProb(token=entry["token"], logprob=entry["logprob"], bytes=entry["bytes"])
