"""Scores of the parts of a reply: the answer, the reasoning, each call, each field of an object.

A part is a run of the reply's tokens, so its scores are those of a slice of the trace. Methods that
need more than the trace have none.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from uq_llm_integrations.chat.json_spans import JsonValue, Span, json_values
from uq_llm_integrations.chat.reply import Reply, ToolCall
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.methods.scoring import score_candidate
from uq_llm_integrations.records import Candidate, JsonObject


class SpanScores:
    """Scores spans of one candidate by methods of the trace; `texts` are those of its tokens."""

    def __init__(self, candidate: Candidate, texts: Sequence[str], methods: Iterable[str]) -> None:
        self._candidate, self.text = candidate, "".join(texts)
        self._ends = list(accumulate(map(len, texts)))
        self._starts = [0, *self._ends[:-1]]
        self._methods = [name for name in methods if find_method(name).level == "sequence"]

    def of_reply(self, reply: Reply, *, is_object: bool = False) -> JsonObject:
        """Return the scores of what the reply consists of; nothing where it is one plain text.

        `answer`, `reasoning` and `tool_calls` where there is more than one kind of part, and
        `fields` where the reply is to be an object. A call that is not written as JSON has the
        scores of the whole reply, and its `of` says so.
        """
        parts: JsonObject = {}
        if reply.reasoning or reply.tool_calls:
            thought = self._span(reply.reasoning)
            parts["reasoning"] = thought and self._of_span(thought)
            said = self._span(reply.content, thought[1] if thought else 0)
            parts["answer"] = said and self._of_span(said)
            parts["tool_calls"] = self._of_calls(reply.tool_calls)
        if is_object:
            parts["fields"] = self._of_object(reply.content)
        return {name: part for name, part in parts.items() if part}

    def _span(self, text: str | None, after: int = 0) -> Span | None:
        said = (text or "").strip()
        start = self.text.find(said, after) if said else -1
        return None if start < 0 else (start, start + len(said))

    def _of_calls(self, calls: Sequence[ToolCall]) -> list[JsonObject]:
        found = list(json_values(self.text))
        found = [inner for one in found for inner in (one, *_all_nested(one))]
        scored = []
        for call in calls:
            found_in = next((one for one in found if _is_of(one, call)), None)
            span = found_in.span if found_in else (0, len(self.text))
            arguments = _arguments(found_in, call) if found_in else None
            scored.append(
                {"name": call.name, "id": call.id, **self._of_span(span)}
                | ({} if found_in else {"of": "the whole reply"})
                | ({"fields": self._of_fields(arguments)} if arguments else {})
            )
            found = [one for one in found if found_in is None or one.span[0] >= found_in.span[1]]
        return scored

    def _of_object(self, content: str) -> JsonObject | None:
        start = self.text.rfind(content.strip()) if content.strip() else -1
        value = next(json_values(self.text[start:]), None) if start >= 0 else None
        return self._of_fields(value, start) if value else None

    def _of_fields(self, value: JsonValue, offset: int = 0) -> JsonObject:
        return {
            path: self._of_span((start + offset, end + offset))["scores"]
            for path, (start, end) in value.fields.items()
        }

    def _of_span(self, span: Span) -> JsonObject:
        # Tokens without a text of their own begin the character that comes with a later one.
        first, last = bisect_left(self._starts, span[0]), bisect_left(self._ends, span[1])
        if first == len(self._starts) or self._starts[first] > span[0]:
            first -= 1  # the span begins within a token
        trace = self._candidate.trace[first : last + 1]
        scores = score_candidate(replace(self._candidate, trace=trace), self._methods)
        return {
            "scores": {name: one.value for name, one in scores.items()},
            "tokens": [first, first + len(self._candidate.token_ids[first : last + 1])],
        }


def _all_nested(value: JsonValue) -> list[JsonValue]:
    return [inner for one in value.nested for inner in (one, *_all_nested(one))]


def _is_of(value: JsonValue, call: ToolCall) -> bool:
    """Return whether an object is a call with its name, or the arguments alone."""
    said = value.value
    if not isinstance(said, dict):
        return False
    arguments = _parsed(call)
    is_named = said.get("name") == call.name and arguments in (
        said.get("arguments"),
        said.get("parameters"),
    )
    return is_named or (bool(arguments) and said == arguments)


def _arguments(value: JsonValue, call: ToolCall) -> JsonValue | None:
    arguments = _parsed(call)
    return next((one for one in (value, *value.nested) if one.value == arguments), None)


def _parsed(call: ToolCall) -> Any:
    try:
        return json.loads(call.arguments or "{}")
    except ValueError:
        return None
