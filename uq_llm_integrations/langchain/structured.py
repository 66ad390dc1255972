"""Answers that follow a schema."""

from __future__ import annotations

from typing import Any, Literal, get_args

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.runnables import Runnable, RunnableGenerator

from uq_llm_integrations.errors import ConfigurationError, described
from uq_llm_integrations.langchain.object_reader import ObjectReader
from uq_llm_integrations.langchain.object_schema import ObjectSchema
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
    """Return the model, bound to the schema, and what reads its answer."""
    if method not in get_args(Method):
        allowed = ", ".join(get_args(Method))
        raise ConfigurationError(f"method is {described(method)}; allowed are {allowed}")
    due = ObjectSchema(schema)
    if due.traced is not None:
        kwargs["ls_structured_output_format"] = {"kwargs": {"method": method}, "schema": due.traced}
    is_call = method == "function_calling"
    if is_call:
        tool = due.tool
        name = tool["function"]["name"]
        bound = chat.bind(tools=[tool], tool_choice=name, **kwargs)
    else:
        bound = chat.bind(
            response_format=_response_format(due, method), raises_abstention=False, **kwargs
        )
    reader = ObjectReader(due, is_call=is_call)
    if include_raw:
        return bound | RunnableGenerator(reader.with_raw, reader.awith_raw, name="ObjectReader")
    read: Runnable[Any, Any]
    read = RunnableGenerator(reader.objects, reader.aobjects, name="ObjectReader")
    return bound | (read if due.cls is None else read.with_types(output_type=due.cls))


def _response_format(due: ObjectSchema, method: Method) -> JsonObject:
    if method == "json_mode":
        due.check_is_object()
        return {"type": "json_object"}
    form = {"name": due.name, "schema": due.plain}
    return {"type": "json_schema", "json_schema": form}
