"""LangChain's ways to say a schema, as a JSON Schema, and what is made of JSON that follows it."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.v1 import BaseModel as BaseModelV1
from typing_extensions import is_typeddict

from uq_llm_integrations.chat.schemas import (
    check_is_object,
    class_schema,
    is_recursive,
    object_tool,
    parameters_of,
    with_plain_root,
)  # fmt: skip  # a list of names
from uq_llm_integrations.errors import ConfigurationError, described, reason
from uq_llm_integrations.records import JsonObject


class ObjectSchema:
    """A pydantic class, a TypedDict, a JSON Schema or a tool, as the schema of an answer.

    `plain` is the JSON Schema, `cls` the pydantic class, where it is one, and `traced` what
    LangChain's tracers are given, None where they cannot read it.
    """

    def __init__(self, schema: JsonObject | type) -> None:
        is_class = isinstance(schema, type) and issubclass(schema, BaseModel | BaseModelV1)
        self.cls: type[BaseModel] | type[BaseModelV1] | None = schema if is_class else None  # type: ignore[assignment]
        self.plain = _plain(schema)
        self.traced = _traced(schema, self.plain)
        title = self.plain.get("title")
        self.name = title if isinstance(title, str) and title else "answer"

    @property
    def tool(self) -> JsonObject:
        """The tool whose arguments are the object."""
        return object_tool(self.name, self.plain)

    def check_is_object(self) -> None:
        """Raise ConfigurationError where the schema is not that of an object."""
        check_is_object(self.plain, self.name)

    def read(self, text: str) -> Any:
        """Return what a JSON text says; raises ValueError where it does not follow the class."""
        if self.cls is None:
            return json.loads(text, strict=False)
        if issubclass(self.cls, BaseModelV1):
            return self.cls.parse_raw(text)
        return self.cls.model_validate_json(text)


def openai_tool(tool: Any, strict: bool | None = None) -> JsonObject:
    """Return a tool in OpenAI's shape; LangChain would cut the recursion out of its arguments."""
    converted = convert_to_openai_tool(tool, strict=strict)
    cls = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    if isinstance(cls, type) and issubclass(cls, BaseModel):
        schema = class_schema(cls)
        if is_recursive(schema):
            converted["function"]["parameters"] = parameters_of(schema)
    return converted


def _plain(schema: JsonObject | type) -> JsonObject:
    if isinstance(schema, dict):
        return with_plain_root(_unwrapped(schema))
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return class_schema(schema)
    if isinstance(schema, type) and issubclass(schema, BaseModelV1):
        return with_plain_root(schema.schema())
    if is_typeddict(schema):
        return _typed_dict(schema)
    if not callable(schema):
        raise ConfigurationError(f"{described(schema)} is no schema; allowed are dicts and classes")
    return _converted(schema)


def _converted(schema: Any) -> JsonObject:
    try:
        return convert_to_json_schema(schema)
    except Exception as error:  # LangChain's message has what the schema says of itself
        raise ConfigurationError(f"{described(schema)} is no schema: {reason(error)}") from error


def _traced(schema: JsonObject | type, plain: JsonObject) -> JsonObject | None:
    try:
        traced = convert_to_openai_tool(schema) if isinstance(schema, type) else plain
        convert_to_json_schema(traced)  # as LangChain will, which catches few errors there
    except Exception:  # such as of a list of types, which JSON Schema allows
        return None
    return traced


def _unwrapped(schema: JsonObject) -> JsonObject:
    """Return a JSON Schema as it is; what other APIs wrap one in is taken off."""
    match schema:
        case {"type": "function", "function": {"name": _}} | {"name": _} | {"toolSpec": _}:
            return _converted(schema)
        case {"type": "json_schema", "json_schema": {"schema": dict(inner)}}:
            return inner
    return schema


def _typed_dict(schema: type) -> JsonObject:
    """Return LangChain's schema, which has descriptions; it knows no recursion, pydantic does."""
    try:
        plain: JsonObject = TypeAdapter(schema).json_schema()
    except PydanticUserError:  # it takes those of typing_extensions alone, before Python 3.12
        return _converted(schema)
    return with_plain_root(plain) if is_recursive(plain) else _converted(schema)
