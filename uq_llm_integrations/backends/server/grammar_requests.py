"""Structured outputs as a server takes them, with as little white space as the embedded engine has.

A JSON Schema as vLLM takes it allows any white space between two values, and small models may find
no end of it. A structural tag says how much there may be. Only xgrammar reads it, so that a schema
with other keywords than those that it serves for sure is handed on as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from uq_llm_integrations.backends.vllm.grammar_schemas import FORMATS, grammar_schema

SPACES = 1
"""White space in a row that a JSON grammar allows."""

_SERVED = frozenset(
    {"$defs", "$ref", "additionalProperties", "anyOf", "const", "default", "definitions"}
    | {"description", "enum", "examples", "format", "items", "maxItems", "maxLength", "maximum"}
    | {"minItems", "minLength", "minimum", "pattern", "properties", "required", "title", "type"}
)
_MAPS = frozenset({"properties", "$defs", "definitions"})
_VALUES = frozenset({"const", "enum", "default", "examples", "required", "type"})


def server_options(value: Any) -> dict[str, object]:
    """Return options as a mapping without what is not set, where they are vLLM's own object."""
    found = dict(value) if isinstance(value, Mapping) else asdict(value)
    return {name: one for name, one in found.items() if one is not None and name[0] != "_"}


def structured_outputs(value: Any) -> dict[str, object]:
    """Return what a server is given as `structured_outputs`.

    Example:
        >>> structured_outputs({"choice": ["yes", "no"]})
        {'choice': ['yes', 'no']}
    """
    given = server_options(value)
    schema: Any = given.get("json")
    if schema is None and given.get("json_object"):
        schema = {"type": "object"}
    if isinstance(schema, str):
        schema = _read(schema)
    if not isinstance(schema, Mapping):
        return given
    schema = grammar_schema(schema)
    if not _is_served(schema):
        return {**given, "json": schema}
    form = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": SPACES}
    return {"structural_tag": json.dumps({"type": "structural_tag", "format": form})}


def _read(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None  # the server says what is wrong about it


def _is_served(schema: object) -> bool:
    """Return whether xgrammar serves all of a schema for sure."""
    if isinstance(schema, list):
        return all(map(_is_served, schema))
    if not isinstance(schema, Mapping):
        return True
    has_pattern = "pattern" in schema or "format" in schema
    is_plain = not (has_pattern and {"minLength", "maxLength"} & schema.keys())
    is_known = schema.keys() <= _SERVED and schema.get("format", "date") in FORMATS
    return is_plain and is_known and all(_is_part_served(*one) for one in schema.items())


def _is_part_served(key: str, part: object) -> bool:
    if key in _VALUES:
        return True
    if key in _MAPS and isinstance(part, Mapping):
        return all(map(_is_served, part.values()))
    return _is_served(part)
