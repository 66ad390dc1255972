"""From LangChain's messages and tools to a turn, and from replies back: pure translation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    InvalidToolCall,
    ToolCall,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    GenerationChunk,
    LLMResult,
)

from uq_llm_integrations.chat.objects import call_arguments
from uq_llm_integrations.chat.parsers import tool_choice_of
from uq_llm_integrations.chat.reply import ChatResult as Answer
from uq_llm_integrations.chat.reply import ReplyPart, ReplyPiece, ScoredReply, Turn
from uq_llm_integrations.errors import InvalidAnswerError, InvalidRequestError
from uq_llm_integrations.langchain.chunks import Calls, ReplyChunk
from uq_llm_integrations.records import Conversation, JsonObject, Result
from uq_llm_integrations.report.metadata import Metadata, token_usage

PROVIDER = "uq_llm_integrations"


def turn_of(
    messages: Sequence[BaseMessage],
    stop: Sequence[str] | None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_choice: Any = None,
    response_format: Mapping[str, Any] | None = None,
    raises_abstention: bool = True,
) -> Turn:
    """Return the turn that the model is given; scores in the messages' metadata stay out of it."""
    conversation = Conversation(tuple(map(_plain, messages)), tuple(tools or ()))
    schema = None if response_format is None else schema_of(response_format)
    return Turn(
        conversation,
        tuple(stop or ()),
        "auto" if tool_choice is None else tool_choice_of(tool_choice),
        schema,
        raises_abstention=raises_abstention,
    )


def _plain(message: BaseMessage) -> JsonObject:
    """Return a message in OpenAI's shape, with the reasoning where chat templates look for it."""
    if not isinstance(message, AIMessage):
        return _converted(message)
    blocks = message.content_blocks
    thoughts = "".join(one.get("reasoning", "") for one in blocks if one["type"] == "reasoning")
    if isinstance(message.content, list):
        content = [one for one in message.content if _kind(one) not in _NOT_SAID]
        message = message.model_copy(update={"content": content})
    return _converted(message) | ({"reasoning_content": thoughts} if thoughts else {})


_NOT_SAID = {"reasoning", "thinking", "tool_call", "tool_call_chunk", "invalid_tool_call"}


def _kind(block: str | JsonObject) -> str:
    return "text" if isinstance(block, str) else str(block.get("type"))


def _converted(message: BaseMessage) -> JsonObject:
    converted = convert_to_openai_messages(message)
    assert isinstance(converted, dict)
    return converted


def schema_of(response_format: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the JSON Schema of OpenAI's `response_format`, `{}` for any JSON object."""
    match response_format:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
    raise InvalidRequestError(
        f"response_format is {response_format!r}; allowed are the types 'text', 'json_object' and "
        "'json_schema' with its 'json_schema'"
    )


def chat_result(answer: Answer, model: str) -> ChatResult:
    """Return one generation a candidate, the best first."""
    result = answer.result
    generations = []
    for i, one in enumerate(answer.replies):
        info = {"finish_reason": one.finish_reason, "uncertainty": one.uncertainty}
        if one.logprobs is not None:
            info["logprobs"] = {"content": one.logprobs}
        message = message_of(one, usage_of(result, i), model)
        generations.append(ChatGeneration(message=message, generation_info=info))
    output = {"token_usage": token_usage([result]), "model_name": model}
    return ChatResult(generations=generations, llm_output=output)


def message_of(scored: ScoredReply, usage: UsageMetadata, model: str) -> AIMessage:
    """Return a reply as a message; a call that is cut or has no object is an invalid one."""
    calls, invalid = calls_of(scored)
    thoughts = scored.reply.reasoning
    return AIMessage(
        content=scored.reply.content,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=usage,
        additional_kwargs={"reasoning_content": thoughts} if thoughts else {},
        response_metadata={"model_name": model, "model_provider": PROVIDER},
    )


def calls_of(scored: ScoredReply) -> Calls:
    """Return the calls that can be made, and the others with the reasons why they cannot."""
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in scored.reply.tool_calls:
        name, text = call.name, call.arguments
        try:
            arguments = call_arguments(call, scored.candidate.finish_reason)
        except InvalidAnswerError as error:
            invalid.append(invalid_tool_call(name=name, args=text, id=call.id, error=str(error)))
        else:
            calls.append(tool_call(name=name, args=arguments, id=call.id))
    return calls, invalid


def usage_of(result: Result, index: int) -> UsageMetadata:
    """Return a candidate's usage; the first has the prompt and all that was not kept, too.

    Tracers add up the candidates of a call, and the sum is then what it cost.
    """
    own = len(result.candidates[index].token_ids)
    others = sum(len(one.token_ids) for one in result.candidates[1:])
    usage, is_first = result.usage, index == 0
    prompt = usage.prompt_tokens if is_first else 0
    output = usage.generated_tokens - others if is_first else own
    return UsageMetadata(
        input_tokens=prompt,
        output_tokens=output,
        total_tokens=prompt + output,
        input_token_details={"cache_read": usage.cached_tokens if is_first else 0},
    )


def chat_chunk(piece: ReplyPiece, model: str) -> ChatGenerationChunk:
    """Return a chunk. The metadata of the whole reply is in the last one alone.

    LangChain adds up what two chunks both have, but joins lists: the metadata of tokens.
    """
    info: JsonObject = {}
    if piece.logprobs is not None:
        info["logprobs"] = {"content": piece.logprobs}
    uncertainty = piece.uncertainty
    message = _chunk(piece.part)
    if piece.whole and piece.result:
        info["finish_reason"] = piece.whole.finish_reason
        uncertainty = piece.whole.uncertainty | {"by_token": {}} | uncertainty
        message.end_with(calls_of(piece.whole))
        message.chunk_position = "last"
        message.usage_metadata = usage_of(piece.result, 0)
        message.response_metadata = {"model_name": model, "model_provider": PROVIDER}
    uncertainty = {name: value for name, value in uncertainty.items() if value != {}}
    info |= {"uncertainty": uncertainty} if uncertainty else {}
    return ChatGenerationChunk(message=message, generation_info=info or None)


def _chunk(part: ReplyPart) -> ReplyChunk:
    return ReplyChunk(
        content=part.content,
        additional_kwargs=_reasoning(part.reasoning),
        tool_call_chunks=[
            tool_call_chunk(name=one.name, args=one.arguments, id=one.id, index=one.index)
            for one in part.calls
        ],
    )


def _reasoning(text: str | None) -> JsonObject:
    """Return reasoning where LangChain's content blocks look for it."""
    return {"reasoning_content": text} if text else {}


def llm_result(
    results: Sequence[Result], metadata: Sequence[Sequence[Metadata]], model: str
) -> LLMResult:
    """Return one list of generations a prompt, the best first, and the token usage of all."""
    generations: list[list[Any]] = [
        [
            Generation(
                text=result.text if i == 0 else candidate.text,
                generation_info={
                    "finish_reason": candidate.finish_reason,
                    "stop_reason": candidate.stop_reason,
                    "uncertainty": row,
                },
            )
            for i, (candidate, row) in enumerate(zip(result.candidates, rows, strict=True))
        ]
        for result, rows in zip(results, metadata, strict=True)
    ]
    output = {"token_usage": token_usage(results), "model_name": model}
    return LLMResult(generations=generations, llm_output=output)


def generation_chunk(piece: ReplyPiece) -> GenerationChunk:
    """Return a chunk of a completion, with its tokens' scores where requested.

    Numbers of the whole answer are in the last one alone: LangChain adds up, or refuses, what two
    chunks both have, but joins lists.
    """
    info: JsonObject = {}
    if piece.whole:
        candidate = piece.whole.candidate
        info = {"finish_reason": candidate.finish_reason, "stop_reason": candidate.stop_reason}
        info["uncertainty"] = {k: v for k, v in piece.whole.uncertainty.items() if k != "by_token"}
    if piece.uncertainty:
        info["uncertainty"] = info.get("uncertainty", {}) | piece.uncertainty
    return GenerationChunk(text=piece.part.content, generation_info=info or None)
