"""From LangChain's messages and tools to a turn, and from replies back: pure translation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    InvalidToolCall,
    RemoveMessage,
    SystemMessage,
    ToolCall,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    GenerationChunk,
    LLMResult,
)
from langchain_core.tools import BaseTool

from uq_llm_integrations.backends.content_blocks import Message, plain_messages
from uq_llm_integrations.backends.sampling_values import stop_strings
from uq_llm_integrations.chat.objects import call_arguments
from uq_llm_integrations.chat.parsers import continued, flag_of, tool_choice_of
from uq_llm_integrations.chat.reply import ChatResult as Answer
from uq_llm_integrations.chat.reply import ReplyPiece, ScoredReply, Turn
from uq_llm_integrations.chat.tool_specs import tool_specs
from uq_llm_integrations.errors import InvalidAnswerError, InvalidRequestError, described
from uq_llm_integrations.langchain.chunks import Calls, ReplyChunk
from uq_llm_integrations.langchain.object_schema import openai_tool
from uq_llm_integrations.records import Conversation, JsonObject, Result, Usage
from uq_llm_integrations.report.metadata import Metadata, chosen_tokens, token_usage

PROVIDER = "uq_llm_integrations"


def turn_of(
    messages: Sequence[BaseMessage],
    stop: str | Sequence[str] | None,
    tools: Iterable[Any] | None = None,
    tool_choice: Any = None,
    response_format: Mapping[str, Any] | None = None,
    parallel_tool_calls: bool | None = None,
    continue_final_message: bool | None = None,
    raises_abstention: bool = True,
) -> Turn:
    """Return the turn that the model is given; scores in the messages' metadata stay out of it.

    Messages of other models are rendered, or left out where they say nothing to this one. Raises
    InvalidRequestError for pictures, sound and files, and for tools that are no functions.
    """
    plain = tuple(part for one in messages for part in _plain(one))
    conversation = Conversation(plain, () if tools is None else openai_tools(tools))
    if continue_final_message is not None:
        conversation = continued(conversation, continue_final_message)
    schema = None if response_format is None else schema_of(response_format)
    return Turn(
        conversation,
        () if stop is None else stop_strings(stop),
        "auto" if tool_choice is None else tool_choice_of(tool_choice),
        schema,
        parallel_tool_calls=parallel_tool_calls is None
        or flag_of("parallel_tool_calls", parallel_tool_calls, default=True),
        raises_abstention=raises_abstention,
    )


def _plain(message: BaseMessage) -> tuple[Message, ...]:
    """Return a message in OpenAI's shape, with the reasoning where chat templates look for it."""
    if isinstance(message, RemoveMessage):  # a sign for LangGraph's reducers
        return ()
    said, beside = message.content, message.additional_kwargs
    blocks: list[Any] = [said] if isinstance(said, str) else [*said]
    for kind in ("reasoning", "function_call"):
        if isinstance(given := beside.get(kind), dict):
            blocks.append({**given, "type": kind})
    plain = {**_without_content(message), "content": said if blocks == [said] else blocks}
    thoughts = beside.get("reasoning_content") or beside.get("reasoning")
    if isinstance(thoughts, str) and thoughts:
        plain["reasoning_content"] = thoughts
    if isinstance(message, HumanMessage | SystemMessage) and isinstance(plain["content"], str):
        return (plain,)
    # A model's citations split its text; other texts stand by themselves, as in LangChain.
    return plain_messages([plain], "" if isinstance(message, AIMessage) else "\n")


def _without_content(message: BaseMessage) -> JsonObject:
    try:
        converted = convert_to_openai_messages(message.model_copy(update={"content": ""}))
    except ValueError as error:
        raise InvalidRequestError(
            f"{described(message)} is no message of a conversation"
        ) from error
    assert isinstance(converted, dict)
    return converted


_OF_CONTENT = {"model_provider", "output_version"}
"""Metadata of a message by which its content is read."""


def unscored(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return messages as they are sent: without scores and usage, which differ from run to run."""
    sent = []
    for message in messages:
        metadata = {k: v for k, v in message.response_metadata.items() if k in _OF_CONTENT}
        update: JsonObject = {"response_metadata": metadata}
        if isinstance(message, AIMessage):
            update["usage_metadata"] = None
        sent.append(message.model_copy(update=update))
    return sent


def openai_tools(tools: Iterable[Any], strict: bool | None = None) -> tuple[Mapping[str, Any], ...]:
    """Return tools of any kind that LangChain knows in OpenAI's shape.

    Raises InvalidRequestError for what is no function, such as a provider's own tool.
    """
    if not isinstance(tools, Iterable) or isinstance(tools, Mapping | str):
        raise InvalidRequestError(f"tools is {described(tools)}; allowed is a list of functions")
    try:
        return tool_specs([_openai_tool(one, strict) for one in tools])
    except InvalidRequestError:
        raise
    except Exception as error:  # LangChain's message has what a tool says of itself
        raise InvalidRequestError(f"there are tools that are no functions: {error}") from error


def _openai_tool(tool: Any, strict: bool | None) -> Any:
    is_given = isinstance(tool, Mapping) and tool.get("type") not in (None, "object")
    if is_given and "input_schema" not in tool:  # which Anthropic's functions have
        return tool
    if not isinstance(tool, Mapping | BaseTool) and not callable(tool):
        raise InvalidRequestError(
            f"a tool is {described(tool)}; allowed are functions, classes, tools and dicts"
        )
    return openai_tool(tool, strict)


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
        f"response_format is {described(response_format)}; allowed are the types 'text', "
        "'json_object' and "
        "'json_schema' with its 'json_schema'"
    )


def chat_result(answer: Answer, model: str) -> ChatResult:
    """Return one generation a candidate, the best first."""
    result = answer.result
    output = {"token_usage": token_usage([result]), "model_name": model}
    generations = []
    for i, one in enumerate(answer.replies):
        info = {"finish_reason": one.finish_reason, "uncertainty": one.uncertainty}
        if one.logprobs is not None:
            info["logprobs"] = {"content": one.logprobs}
        message = message_of(one, usage_of(result, i), model)
        if i == 0:  # LangChain does so itself, but only where there is one candidate
            message.response_metadata |= output
        generations.append(ChatGeneration(message=message, generation_info=info))
    return ChatResult(generations=generations, llm_output=output)


def message_of(scored: ScoredReply, usage: UsageMetadata, model: str) -> AIMessage:
    """Return a reply as a message; a call that is cut or has no object is an invalid one."""
    calls, invalid = calls_of(scored) if scored.reply.tool_calls else ([], [])
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
    """Return the usage of a call with its first candidate, nothing with the others.

    All that was generated counts, `chosen` of it for the candidate itself. Callbacks read the first
    candidate and tracers add up all of them: both get what the call has cost.
    """
    usage = result.usage if index == 0 else Usage()
    chosen = chosen_tokens(result) if index == 0 else 0
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.generated_tokens,
        total_tokens=usage.prompt_tokens + usage.generated_tokens,
        input_token_details={"cache_read": usage.cached_tokens},
        output_token_details=cast(OutputTokenDetails, {"chosen": chosen}),  # keys may be added
    )


def chat_chunk(piece: ReplyPiece, model: str) -> ChatGenerationChunk:
    """Return a chunk. The metadata of the whole reply is in the last one alone.

    LangChain adds up what two chunks both have, but joins lists: the metadata of tokens.
    """
    info: JsonObject = {}
    if piece.logprobs is not None:
        info["logprobs"] = {"content": piece.logprobs}
    uncertainty = piece.uncertainty
    message = ReplyChunk(
        content=piece.part.content, additional_kwargs=_reasoning(piece.part.reasoning)
    )
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
