"""Answers that follow a schema."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any, Literal, get_args

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import (
    JsonOutputKeyToolsParser,
    PydanticToolsParser,
)
from langchain_core.runnables import (
    Runnable,
    RunnableGenerator,
    RunnableMap,
    RunnablePassthrough,
)  # fmt: skip  # a list of names
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from uq_llm_integrations.errors import ConfigurationError, HighUncertaintyError
from uq_llm_integrations.records import JsonObject

Method = Literal["json_schema", "function_calling", "json_mode"]


def structured(
    chat: BaseChatModel,
    schema: JsonObject | type,
    method: Method,
    *,
    include_raw: bool,
    **kwargs: Any,
) -> Runnable[LanguageModelInput, Any]:
    """Return the model, bound to the schema, and what parses its answer."""
    if method not in get_args(Method):
        allowed = ", ".join(get_args(Method))
        raise ConfigurationError(f"method is {method!r}; allowed are {allowed}")
    kwargs["ls_structured_output_format"] = {
        "kwargs": {"method": method},
        "schema": convert_to_openai_tool(schema),
    }
    parser: Runnable[Any, Any]
    if method == "function_calling":
        name = convert_to_openai_tool(schema)["function"]["name"]
        bound = chat.bind_tools([schema], tool_choice=name, **kwargs)
        parser = _call_parser(schema, name)
    else:
        bound = chat.bind(response_format=_response_format(schema, method), **kwargs)
        parser = _text_parser(schema)
    parser = RunnableGenerator(_answered, _aanswered) | parser
    return _with_raw(bound, parser) if include_raw else bound | parser


def _answered(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
    """Pass on an answer, or its pieces; raise where the model abstains, since no object says so."""
    for message in messages:
        yield _check_answered(message)


async def _aanswered(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    async for message in messages:
        yield _check_answered(message)


def _check_answered(message: AIMessage) -> AIMessage:
    found = message.response_metadata.get("uncertainty", {})
    if found.get("decision") == "abstained":
        raise HighUncertaintyError(
            found["condition"], text=found["original_text"], uncertainty=found
        )
    return message


def _response_format(schema: JsonObject | type, method: Method) -> JsonObject:
    if method == "json_mode":
        return {"type": "json_object"}
    converted = convert_to_json_schema(schema)
    return {
        "type": "json_schema",
        "json_schema": {"name": converted.get("title", "answer"), "schema": converted},
    }


def _call_parser(schema: JsonObject | type, name: str) -> Runnable[Any, Any]:
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return PydanticToolsParser(tools=[schema], first_tool_only=True)
    return JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)


def _text_parser(schema: JsonObject | type) -> Runnable[Any, Any]:
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return PydanticOutputParser(pydantic_object=schema)
    return JsonOutputParser()


def _with_raw(bound: Runnable[Any, Any], parser: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the message as well, and the error in place of an answer that cannot be parsed."""
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")
