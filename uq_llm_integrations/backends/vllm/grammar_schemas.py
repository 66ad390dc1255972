"""JSON Schemas as vLLM's grammars serve them, and by name what none of them does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from uq_llm_integrations.backends.vllm.grammar_compat import (
    why_not_by_others,
    why_not_by_xgrammar,
)  # fmt: skip  # a list of names
from uq_llm_integrations.errors import InvalidRequestError

Schema = Mapping[str, Any]
"""A JSON Schema."""

FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "json-pointer"}
    | {"relative-json-pointer", "time", "uri", "uri-reference", "uri-template", "uuid"}
)
"""The formats of texts that grammars know."""

_VALUES = ("const", "enum", "default", "examples")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")


def grammar_schema(schema: Any) -> Any:
    """Return a schema without formats that no grammar knows: they are notes, not constraints."""
    if isinstance(schema, list):
        return [grammar_schema(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: one if key in _VALUES else _part(key, one) for key, one in schema.items()}
    if schema.get("type") == "string" and isinstance(name := schema.get("format"), str):
        found["format"] = "uuid" if name.rstrip("1345678") == "uuid" else name
        if found["format"] not in FORMATS:
            del found["format"]
    return found


def _part(key: str, part: Any) -> Any:
    if key in _MAPS and isinstance(part, Mapping):
        return {name: grammar_schema(one) for name, one in part.items()}
    return grammar_schema(part)


def is_served_by_xgrammar(schema: Schema) -> bool:
    """Whether xgrammar serves a schema. vLLM has other backends for some of the others.

    Raises InvalidRequestError, which names the part, for what none of them serves.
    """
    served, refusal = _service(json.dumps(schema))
    if refusal is not None:
        raise InvalidRequestError(refusal)
    return served


@lru_cache(maxsize=256)
def _service(text: str) -> tuple[bool, str | None]:
    """Return whether xgrammar serves a schema, and why it is refused, if it is."""
    schema = json.loads(text)
    if why_not_by_xgrammar(schema) is None:
        return True, None
    reason = why_not_by_others(schema)
    if reason is None:
        return False, None
    path, part = next(_refused(schema, schema), ((), schema))
    where = ".".join(path) or "the whole"
    return False, (
        f"no grammar of vLLM serves the schema, because of {where}: {json.dumps(part)} ({reason}); "
        "leave that out, or let a validator check it"
    )


def _refused(
    schema: Schema, root: Schema, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """Yield the parts, the innermost first, that are not served by themselves."""
    for name, one in _parts(schema):
        yield from _refused(one, root, (*path, name))
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    alone = {**definitions, **schema}
    if why_not_by_xgrammar(alone) is not None and why_not_by_others(alone) is not None:
        yield path, schema


def _parts(schema: Schema) -> Iterator[tuple[str, Schema]]:
    for key, part in schema.items():
        named: Any = ((key, part),)
        if key in _VALUES:
            continue
        if key in _MAPS and isinstance(part, Mapping):
            named = part.items()
        elif isinstance(part, list):
            named = ((key, one) for one in part)
        yield from ((name, one) for name, one in named if isinstance(one, Mapping))
