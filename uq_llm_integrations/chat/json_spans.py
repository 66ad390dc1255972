"""Where the values of a JSON text stand in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed lacks it
from typing import Any

from uq_llm_integrations.chat.field_paths import joined, step

Span = tuple[int, int]

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


@dataclass(frozen=True)
class JsonValue:
    """An object or an array within a text, at `span`; or any other value in one.

    `fields` has the spans of its strings (without their quotes), numbers, true, false and null by
    their paths (`address.city`, `items[0].price`, see `field_paths`); `nested` the objects and
    arrays right within it by their keys or indices. Of a repeated key the last counts, as in
    `value`.
    """

    value: Any
    span: Span
    fields: dict[str, Span] = field(default_factory=dict)
    nested: dict[str | int, JsonValue] = field(default_factory=dict)


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
    parts: dict[str | int, JsonValue] = {}  # by their keys, so that the last of equal ones stays
    at = _after_space(text, start + 1)
    while text[at] != ("}" if is_object else "]"):
        if value:
            at = _after(text, at, ",")
        key, at = _key(text, at) if is_object else (len(value), at)
        parts[key] = part = _value(text, at)
        if is_object:
            value[key] = part.value
        else:
            value.append(part.value)
        at = _after_space(text, part.span[1])
    nested = {key: one for key, one in parts.items() if isinstance(one.value, dict | list)}
    return JsonValue(value, (start, at + 1), _fields(parts), nested)


def _value(text: str, at: int) -> JsonValue:
    """Read a value; one that is neither an object nor an array has itself as its field."""
    if text[at] in "{[":
        return _composed(text, at)
    value, end = _DECODER.raw_decode(text, at)
    quoted = isinstance(value, str) and end - at > 2
    return JsonValue(value, (at, end), {"": (at + 1, end - 1) if quoted else (at, end)})


def _fields(parts: Mapping[str | int, JsonValue]) -> dict[str, Span]:
    """Return the fields of all parts by their paths."""
    return {
        joined(step(key), path): span
        for key, part in parts.items()
        for path, span in part.fields.items()
    }


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
