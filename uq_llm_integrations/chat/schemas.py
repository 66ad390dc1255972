"""JSON Schemas of pydantic's classes, and the tools that an object can be the arguments of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError, described
from uq_llm_integrations.records import JsonObject

Schema = Mapping[str, Any]
"""A JSON Schema."""

_SECONDS = r"[0-9]+(\.[0-9]{1,6})?S"
_HOURS = rf"([0-9]+H([0-9]+M)?({_SECONDS})?|[0-9]+M({_SECONDS})?|{_SECONDS})"
_DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
_ZONE = r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"

DECIMAL = r"^-?[0-9]+(\.[0-9]+)?$"
DURATION = rf"^-?P([0-9]+W|([0-9]+Y)?([0-9]+M)?[0-9]+D(T{_HOURS})?|T{_HOURS})$"


class _Schemas(GenerateJsonSchema):
    """Writes what a grammar has to allow, and is silent about defaults that JSON has not.

    Grammars take the formats of times for those of RFC 3339, which has none without a zone, and
    know no unique items; pydantic makes sets of any.
    """

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  # pydantic's

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonObject:
        """Return that of a number or a text that is one."""
        written: JsonObject = super().decimal_schema(schema)
        for one in written.get("anyOf", ()):
            if one.get("type") == "string":
                one["pattern"] = DECIMAL
        return written

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonObject:
        """Return that of a date and a time, with a zone where it must have one."""
        return {"type": "string", "pattern": f"^{_DATE}T{_TIME}{_zone(schema)}$"}

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonObject:
        """Return that of a time, with a zone where it must have one."""
        return {"type": "string", "pattern": f"^{_TIME}{_zone(schema)}$"}

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonObject:
        """Return that of a duration, with days and hours."""
        written: JsonObject = super().timedelta_schema(schema)
        is_text = written.get("type") == "string"
        return {"type": "string", "pattern": DURATION} if is_text else written

    def set_schema(self, schema: core_schema.SetSchema) -> JsonObject:
        """Return that of a list."""
        return _without_unique_items(super().set_schema(schema))

    def is_subclass_schema(self, schema: core_schema.IsSubclassSchema) -> JsonObject:
        """Refuse it: no JSON is a class."""
        return self.handle_invalid_for_json_schema(schema, "a class")

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> JsonObject:
        """Return that of a list."""
        return _without_unique_items(super().frozenset_schema(schema))


def _zone(schema: Schema) -> str:
    constraint = schema.get("tz_constraint")
    if constraint == "naive":
        return ""
    return f"{_ZONE}?" if constraint is None else _ZONE


def _without_unique_items(schema: JsonObject) -> JsonObject:
    return {key: one for key, one in schema.items() if key != "uniqueItems"}


def class_schema(cls: type[BaseModel]) -> JsonObject:
    """Return the JSON Schema of a pydantic class, with its definitions and recursion.

    Raises ConfigurationError, which names the field, for what no JSON can be.

    Example:
        >>> from pydantic import BaseModel
        >>> class City(BaseModel):
        ...     name: str
        >>> class_schema(City)["required"]
        ['name']
    """
    try:
        return with_plain_root(cls.model_json_schema(schema_generator=_Schemas))
    except PydanticUserError as error:
        field = _unwritable_field(cls)
        where = f"{cls.__name__}.{field}" if field else cls.__name__
        raise ConfigurationError(
            f"no JSON can be made for {where}: {error.message}; allowed is what has a JSON Schema"
        ) from error


def plain_schema(schema: Schema | type[BaseModel]) -> JsonObject:
    """Return the JSON Schema that a caller means, `{}` for any JSON object.

    Raises InvalidRequestError for what is none, and ConfigurationError as `class_schema` does.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return class_schema(schema)
    if not isinstance(schema, Mapping):
        raise InvalidRequestError(
            f"the schema is {described(schema)}; allowed are a JSON Schema, as a dict, and a "
            "pydantic class"
        )
    return dict(schema)


def with_plain_root(schema: Schema) -> JsonObject:
    """Return a schema whose root is no reference: many look for its properties there."""
    root, seen = dict(schema), set[str]()
    while isinstance(name := root.get("$ref"), str) and name not in seen:
        seen.add(name)
        kind, _, key = name.removeprefix("#/").partition("/")
        if not isinstance(target := schema.get(kind, {}).get(key), Mapping):
            break
        rest = {one: value for one, value in root.items() if one != "$ref"}
        root = {**target, **rest}
    return root


def parameters_of(schema: Schema) -> JsonObject:
    """Return a schema as that of a call's arguments, whose tool has the name and description."""
    return {key: one for key, one in schema.items() if key not in {"title", "description"}}


def is_recursive(schema: Schema) -> bool:
    """Whether an object of the schema may hold another one of a kind that it is part of."""
    definitions = {**schema.get("$defs", {}), **schema.get("definitions", {})}
    reached = {name: _references(one) for name, one in definitions.items()}
    for name in definitions:
        seen, ahead = set[str](), set(reached[name])
        while ahead:
            if (one := ahead.pop()) == name:
                return True
            ahead |= reached.get(one, set()) - seen
            seen.add(one)
    return False


def _references(part: Any) -> set[str]:
    if isinstance(part, Mapping):
        named = {str(one).rpartition("/")[2] for key, one in part.items() if key == "$ref"}
        return named.union(*map(_references, part.values()))
    return set[str]().union(*map(_references, part)) if isinstance(part, list) else set()


def object_tool(name: str, schema: Schema) -> JsonObject:
    """Return the tool, in OpenAI's shape, whose arguments are the object of a schema.

    Raises ConfigurationError where the schema is not that of an object.
    """
    check_is_object(schema, name)
    described = {key: schema[key] for key in ("description",) if key in schema}
    function = {"name": tool_name(name), **described, "parameters": parameters_of(schema)}
    return {"type": "function", "function": function}


def tool_name(name: str) -> str:
    """Return a name with the signs that names of tools have: `Box[int]` is `Box_int_`."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", name)


def check_is_object(schema: Schema, name: str) -> None:
    """Raise ConfigurationError where what follows the schema may be no object."""
    if not _is_object(schema, schema):
        kind = repr(schema.get("type", "any"))
        raise ConfigurationError(
            f"{name} is of type {kind}; the arguments of a call, and JSON mode, are an object: use "
            "the method 'json_schema' (in LlamaIndex, the default mode), or a field of a class"
        )


def _is_object(schema: Any, root: Schema, depth: int = 0) -> bool:
    if not isinstance(schema, Mapping) or depth > 16:
        return False
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    schema = with_plain_root({**schema, **definitions})
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return all(_is_object(one, root, depth + 1) for one in options)
    default = None if {"enum", "const"} & schema.keys() else "object"
    return bool(schema.get("type", default) == "object")


def _unwritable_field(cls: type[BaseModel]) -> str | None:
    """Return the first field that there is no JSON Schema of."""
    for name, field in cls.model_fields.items():
        try:
            TypeAdapter(field.rebuild_annotation()).json_schema(schema_generator=_Schemas)
        except PydanticUserError:
            return name
    return None
