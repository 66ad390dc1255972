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

from uq_llm_integrations.chat.json_spans import JsonValue, Span, each_value, is_json, json_values
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
        found, scored = list(each_value(json_values(self.text))), []
        next_one = 0  # calls are written in their order
        for call in calls:
            at = _place(found, call, next_one)
            written = None if at is None else found[at]
            span = written.span if written else (0, len(self.text))
            arguments = _arguments(written, call) if written else None
            scored.append(
                {"name": call.name, "id": call.id, **self._of_span(span)}
                | ({} if written else {"of": "the whole reply"})
                | ({"fields": self._of_fields(arguments)} if arguments else {})
            )
            while written and next_one < len(found) and found[next_one].span[0] < written.span[1]:
                next_one += 1
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


def _place(found: Sequence[JsonValue], call: ToolCall, first: int) -> int | None:
    """Return which of some objects is a call with its name, or the arguments alone."""
    arguments = _parsed(call)
    places = range(first, len(found))
    return next((i for i in places if _is_of(found[i].value, call.name, arguments)), None)


def _is_of(said: Any, name: str, arguments: Any) -> bool:
    if not isinstance(said, dict):
        return False
    is_named = said.get("name") == name and arguments in (
        said.get("arguments"),
        said.get("parameters"),
    )
    return is_named or (bool(arguments) and said == arguments)


def _arguments(value: JsonValue, call: ToolCall) -> JsonValue | None:
    """Return where the arguments stand in a call: under their name, else they are all there is."""
    named = (value.nested.get(name) for name in ("arguments", "parameters"))
    found = [one for one in (*named, value) if one and one.value == _parsed(call)]
    return found[0] if found else None


def _parsed(call: ToolCall) -> Any:
    text = call.arguments or "{}"
    return json.loads(text, strict=False) if is_json(text) else None
