"""Where the values of a JSON text stand in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed lacks it
from typing import Any

Span = tuple[int, int]

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


@dataclass(frozen=True)
class JsonValue:
    """An object or an array within a text, at `span`.

    `fields` has the spans of its strings (without their quotes), numbers, true, false and null by
    their paths (`address.city`, `items[0].price`); `nested` the objects and arrays within it.
    """

    value: Any
    span: Span
    fields: dict[str, Span] = field(default_factory=dict)
    nested: tuple[JsonValue, ...] = ()


def is_json(text: str) -> bool:
    """Whether a text is one JSON value; line breaks may stand in its strings."""
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def json_values(text: str) -> Iterator[JsonValue]:
    """Yield the objects and arrays that a text contains, in their order; other text is passed."""
    at = 0
    while at < len(text):
        if text[at] in "{[":
            try:
                found = _composed(text, at)
            except (ValueError, IndexError):  # it only looked like one
                at += 1
                continue
            yield found
            at = found.span[1]
        else:
            at += 1


def _composed(text: str, start: int) -> JsonValue:
    """Read the object or array that begins here."""
    is_object = text[start] == "{"
    value: Any = {} if is_object else []
    fields: dict[str, Span] = {}
    nested: list[JsonValue] = []
    at = _after_space(text, start + 1)
    while text[at] != ("}" if is_object else "]"):
        if value:
            at = _after(text, at, ",")
        key, at = _key(text, at) if is_object else (len(value), at)
        part = _value(text, at, fields, str(key) if is_object else f"[{key}]")
        if isinstance(part, JsonValue):
            nested.append(part)
        inner, at = (part.value, part.span[1]) if isinstance(part, JsonValue) else part
        if is_object:
            value[key] = inner
        else:
            value.append(inner)
        at = _after_space(text, at)
    return JsonValue(value, (start, at + 1), fields, tuple(nested))


def _value(text: str, at: int, fields: dict[str, Span], path: str) -> JsonValue | tuple[Any, int]:
    """Read a value; what it has by way of fields is entered under its path."""
    if text[at] in "{[":
        part = _composed(text, at)
        for name, span in part.fields.items():
            fields[path + name if name.startswith("[") else f"{path}.{name}"] = span
        return part
    value, end = _DECODER.raw_decode(text, at)
    quoted = isinstance(value, str) and end - at > 2
    fields[path] = (at + 1, end - 1) if quoted else (at, end)
    return value, end


def _key(text: str, at: int) -> tuple[str, int]:
    key, at = scanstring(text, _after(text, at, '"', skip=False))
    return key, _after(text, _after_space(text, at), ":")


def _after(text: str, at: int, wanted: str, *, skip: bool = True) -> int:
    if text[at] != wanted:
        raise ValueError(f"{wanted} is missing")
    return _after_space(text, at + 1) if skip else at + 1


def _after_space(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at
