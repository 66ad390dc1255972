"""Where the values of a JSON text stand in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from uq_llm_integrations.chat.field_paths import joined, step

Span = tuple[int, int]

NESTING_LIMIT = 100
"""How many objects and arrays of a model may stand within each other."""

_STRING = r'"(?:[^"\\\x00-\x1f]++|\\.)*+"'
_NUMBER = r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_TOKEN = re.compile(
    r"[ \t\r\n]*+(?:(?P<opening>[\[{])|(?P<closing>[\]}])|(?P<comma>,)|(?P<colon>:)|"
    rf"(?P<scalar>{_STRING}|{_NUMBER}|true|false|null|NaN|-?Infinity))",
    re.DOTALL,
)
_OPENING = re.compile(r"[\[{]")
_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True)
class JsonValue:
    """An object or an array within a text, at `span`; `parts` is what it holds by key or index.

    Of a repeated key the last counts, as in `value`.
    """

    value: Any
    span: Span
    parts: dict[str | int, Part] = field(default_factory=dict)

    @cached_property
    def fields(self) -> dict[str, Span]:
        """The spans of its strings (without their quotes), numbers, true, false and null.

        By their paths: `address.city`, `items[0].price`; see `field_paths`.
        """
        return dict(_fields(self, ""))

    @property
    def nested(self) -> dict[str | int, JsonValue]:
        """The objects and arrays right within it, by their keys or indices."""
        return {key: part for key, part in self.parts.items() if isinstance(part, JsonValue)}


Part: TypeAlias = JsonValue | Span


def _fields(value: JsonValue, before: str) -> Iterator[tuple[str, Span]]:
    for key, part in value.parts.items():
        path = joined(before, step(key))
        if isinstance(part, JsonValue):
            yield from _fields(part, path)
        else:
            yield path, part


def is_too_deep(text: str) -> bool:
    """Whether objects and arrays of a JSON text stand within each other beyond the limit."""
    depth = 0
    if text.count("{") + text.count("[") <= NESTING_LIMIT:
        return False
    for found in _BRACKET.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found[0], 0)
        if depth > NESTING_LIMIT:
            return True
    return False


def is_json(text: str) -> bool:
    """Whether a text is one JSON value within the limit; line breaks may stand in its strings."""
    if is_too_deep(text):
        return False
    try:
        json.loads(text, strict=False)
    except ValueError:
        return False
    return True


def json_values(text: str) -> Iterator[JsonValue]:
    """Yield the objects and arrays that a text contains, in their order; other text is passed.

    So is what is nested beyond the limit. It takes time by the length of the text.
    """
    at = 0
    while opening := _OPENING.search(text, at):
        found, at = _Reading(text).read(opening.start())
        yield from found


def each_value(values: Iterable[JsonValue]) -> Iterator[JsonValue]:
    """Yield values and all within them, by where they begin."""
    for one in values:
        yield one
        yield from each_value(one.nested.values())


@dataclass
class _Frame:
    """An object or array that is not closed yet."""

    start: int
    value: Any
    parts: dict[str | int, Part] = field(default_factory=dict)
    key: str | None = None


class _Reading:
    """Reads one object or array, and what was whole within it where it is none itself."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[_Frame] = []
        self._awaits = "value"
        self._whole: JsonValue | None = None

    def read(self, at: int) -> tuple[list[JsonValue], int]:
        """Return what was found, and where to go on."""
        last = None
        while self._whole is None:
            token = _TOKEN.match(self._text, at)
            if token is None or not self._takes(token):
                break
            last, at = token, token.end()
        if self._whole is not None:
            return [self._whole], at
        parts = [part for one in self._open for part in one.parts.values()]
        found = [part for part in parts if isinstance(part, JsonValue)]
        if last and (last["scalar"] or "").startswith('"'):  # what follows may begin within it
            at = last.start("scalar") + 1
        return found, at

    def _takes(self, token: re.Match[str]) -> bool:
        """Take a token, and return whether it may stand here."""
        awaits = self._awaits
        match token.lastgroup:
            case "opening" if awaits in {"value", "first value"}:
                return self._opened(token)
            case "closing" if awaits in {"first value", "first key", "comma"}:
                return self._closed(token)
            case "comma" if awaits == "comma":
                self._awaits = "key" if isinstance(self._open[-1].value, dict) else "value"
            case "colon" if awaits == "colon":
                self._awaits = "value"
            case "scalar" if awaits not in {"comma", "colon"}:
                return self._scalar(token)
            case _:
                return False
        return True

    def _opened(self, token: re.Match[str]) -> bool:
        is_object = token["opening"] == "{"
        self._open.append(_Frame(token.start("opening"), {} if is_object else []))
        self._awaits = "first key" if is_object else "first value"
        return len(self._open) <= NESTING_LIMIT

    def _closed(self, token: re.Match[str]) -> bool:
        frame = self._open[-1]
        if token["closing"] != ("}" if isinstance(frame.value, dict) else "]"):
            return False
        self._open.pop()
        whole = JsonValue(frame.value, (frame.start, token.end()), frame.parts)
        if self._open:
            self._entered(whole.value, whole)
        else:
            self._whole = whole
        return True

    def _scalar(self, token: re.Match[str]) -> bool:
        try:
            value = json.loads(token["scalar"])
        except ValueError:  # an escape that is none, or a number with too many digits
            return False
        start, end = token.span("scalar")
        if self._awaits not in {"key", "first key"}:
            is_quoted = isinstance(value, str) and end - start > 2
            self._entered(value, (start + 1, end - 1) if is_quoted else (start, end))
        elif isinstance(value, str):
            self._open[-1].key, self._awaits = value, "colon"
        else:
            return False
        return True

    def _entered(self, value: Any, part: Part) -> None:
        """Enter a value into the object or array that it stands in."""
        frame = self._open[-1]
        if isinstance(frame.value, dict):
            key: str | int = frame.key or ""
            frame.value[key] = value
        else:
            key = len(frame.value)
            frame.value.append(value)
        frame.parts.pop(key, None)  # of a repeated key, so that parts stand by where they begin
        frame.parts[key] = part
        self._awaits = "comma"
