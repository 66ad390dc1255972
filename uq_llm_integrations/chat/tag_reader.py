"""Replies in the Hermes format, read in pieces of any size: JSON calls between tags, reasoning.

A whole reply is one piece, so that a stream and a call say the same of it. What a piece says is
shown once nothing that follows can take it back, and a text is looked through once.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from uq_llm_integrations.chat.json_spans import is_too_deep
from uq_llm_integrations.chat.live_text import LiveText, SpaceHeld
from uq_llm_integrations.chat.reply import Reply, ReplyPart, ToolCall, call_parts
from uq_llm_integrations.chat.thought_text import ThoughtText

_CALL, _CALL_END = "<tool_call>", "</tool_call>"

_BEGUN = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"]+)"(?:\s*,\s*"arguments"\s*:\s*(.*))?', re.DOTALL)


class TagReader:
    """Reads the Hermes format: JSON calls in `<tool_call>`, reasoning before `</think>`.

    Reasoning may begin in the prompt, so what does not begin with `<think>` is shown only once it
    is known what it is. What names no tool is content. Calls are shown at the end, since only then
    it is known whether they are whole; where a call `is_due`, so is all content.
    """

    sampling: Mapping[str, Any] = {}

    def __init__(self, *, calls: bool, thinks: bool, is_due: bool = False) -> None:
        self._renewed = partial(type(self), calls=calls, thinks=thinks)
        self._thought = ThoughtText() if thinks else None
        self._said = _Said(calls=calls)
        self._is_due, self._unshown = is_due, list[str]()

    def whole(self, text: str, token_ids: tuple[int, ...] = (), *, is_cut: bool = False) -> Reply:
        """Read a finished reply."""
        reader = self._renewed()
        part = reader.part(text, token_ids, is_last=True)
        return Reply(part.content, part.reasoning or None, tuple(reader._said.calls))

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Show what no tag can take back any more; calls come at the end."""
        reasoning = ""
        if self._thought is not None:
            reasoning, text = self._thought.add(text, is_last=is_last)
        content = self._said.add(text, is_last=is_last)
        if self._is_due:
            self._unshown.append(content)
            content = "".join(self._unshown) if is_last else ""
        return ReplyPart(content, reasoning, call_parts(self._said.calls) if is_last else ())


class _Said:
    """Separates the calls from the content, whose white space around calls is left out."""

    def __init__(self, *, calls: bool) -> None:
        self._reads_calls = calls
        self._text = LiveText((_CALL,) if calls else ())
        self._inner: LiveText | None = None
        self._call: list[str] = []
        self._space = SpaceHeld()
        self._has_content = False
        self.calls: list[ToolCall] = []

    def add(self, text: str, *, is_last: bool) -> str:
        """Return what is added to the content."""
        if not self._reads_calls:
            return text
        shown = []
        while text:
            found, text = self._within(text) if self._inner else self._outside(text)
            shown.append(found)
        if is_last:
            shown.append(self._ended())
        return "".join(shown)

    def _outside(self, text: str) -> tuple[str, str]:
        """Return what is content for certain, and what is to be read then."""
        shown = self._content(self._text.add(text))
        if not self._text.found:
            return shown, ""
        rest = self._text.rest.removeprefix(_CALL)
        self._inner = LiveText((_CALL_END,))
        return shown, rest

    def _within(self, text: str) -> tuple[str, str]:
        assert self._inner is not None
        self._call.append(self._inner.add(text))
        if not self._inner.found:
            return "", ""
        inner, rest = "".join(self._call), self._inner.rest.removeprefix(_CALL_END)
        self._call, self._inner, self._text = [], None, LiveText((_CALL,))
        return self._taken(inner, _CALL_END), rest

    def _ended(self) -> str:
        shown = ""
        if self._inner is not None:
            self._call.append(self._inner.rest)
            shown = self._taken("".join(self._call), "")
        else:
            shown = self._content(self._text.rest)
        return shown if self.calls else shown + self._space.held

    def _taken(self, inner: str, end: str) -> str:
        """Take a call, or return as content what is none."""
        call = _call(inner) or _begun_call(inner, is_closed=bool(end))
        if call is None:
            return self._content(f"{_CALL}{inner}{end}")
        self.calls.append(call)
        return ""

    def _content(self, text: str) -> str:
        shown = self._space.add(text)
        if shown and self.calls and not self._has_content:
            shown = shown.lstrip()
        self._has_content |= bool(shown)
        return shown


def new_call_id() -> str:
    """Return an id for a call."""
    return f"call-{uuid.uuid4().hex[:16]}"


def _call(text: str) -> ToolCall | None:
    """Return a call that is whole, None where the text is none."""
    if is_too_deep(text):
        return None
    try:
        call = json.loads(text)
        name, arguments = call["name"], call.get("arguments", {})
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    if not isinstance(name, str) or not name:
        return None
    return ToolCall(name, json.dumps(arguments, ensure_ascii=False), new_call_id())


def _begun_call(text: str, *, is_closed: bool) -> ToolCall | None:
    """Return a call that is cut or damaged, None where no tool is named."""
    text = _without_begun_end(text)
    if call := _call(text):
        return call
    found = _BEGUN.match(text)
    if found is None:
        return None
    arguments = (found[2] or "").rstrip()
    if is_closed:  # the last brace is not theirs
        arguments = arguments.removesuffix("}").rstrip()
    return ToolCall(found[1], arguments, new_call_id(), is_cut=True)


def _without_begun_end(text: str) -> str:
    sizes = (n for n in range(len(_CALL_END) - 1, 0, -1) if text.endswith(_CALL_END[:n]))
    return text[: len(text) - next(sizes, 0)].rstrip()
