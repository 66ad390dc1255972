"""Replies with `<think>` and `<tool_call>` tags, read without vLLM and without a tokenizer."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from uq_llm_integrations.chat.reply import CallPart, Reply, ReplyPart, ToolCall

_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_THOUGHT = re.compile(r"^\s*(?:<think>)?(.*?)</think>\s*", re.DOTALL)
_TAGS = ("<tool_call>", "</think>", "<think>")


class TagReader:
    """Reads the Hermes format: JSON calls in `<tool_call>`, reasoning before `</think>`.

    Reasoning may begin in the prompt, so what does not begin with `<think>` is shown only once it
    is known what it is.
    """

    sampling: Mapping[str, Any] = {}

    def __init__(self, *, calls: bool, thinks: bool) -> None:
        self._calls, self._thinks = calls, thinks
        self._seen = ""
        self._shown = ReplyPart()

    def whole(self, text: str, token_ids: tuple[int, ...] = ()) -> Reply:
        """Read a finished reply; a call that is no JSON stays in the content."""
        reasoning, content = self._thought(text) if self._thinks else (None, text)
        calls: list[ToolCall] = []
        if self._calls:
            content = _CALL.sub(lambda found: _taken(found, calls), content)
        return Reply(content.strip() if calls else content, reasoning, tuple(calls))

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Show what no tag can take back any more; calls come when they are whole."""
        self._seen += text
        if is_last:
            return self._added(self.whole(self._seen), is_last=True)
        seen = self._seen.split("<tool_call>")[0] if self._calls else self._seen
        if self._thinks and "</think>" not in seen and not _is_opened(seen):
            return ReplyPart()
        reasoning, content = self._thought(seen) if self._thinks else (None, seen)
        return self._added(Reply(_settled(content), _settled(reasoning or "")), is_last=False)

    def _thought(self, text: str) -> tuple[str | None, str]:
        if found := _THOUGHT.match(text):
            return found[1].strip("\n"), text[found.end() :]
        if _is_opened(text):  # cut off within
            return text.lstrip().removeprefix("<think>").strip("\n"), ""
        return None, text

    def _added(self, reply: Reply, *, is_last: bool) -> ReplyPart:
        shown, reasoning = self._shown, reply.reasoning or ""
        calls = tuple(
            CallPart(i, one.arguments, one.name, one.id) for i, one in enumerate(reply.tool_calls)
        )
        self._shown = ReplyPart(reply.content, reasoning)
        return ReplyPart(
            reply.content[len(shown.content) :],
            reasoning[len(shown.reasoning) :],
            calls if is_last else (),
        )


def _taken(found: re.Match[str], calls: list[ToolCall]) -> str:
    try:
        call = json.loads(found[1])
        arguments = json.dumps(call.get("arguments", {}), ensure_ascii=False)
        calls.append(ToolCall(str(call["name"]), arguments, f"call-{uuid.uuid4().hex[:16]}"))
    except (ValueError, KeyError, AttributeError):
        return found[0]
    return ""


def _is_opened(text: str) -> bool:
    return text.lstrip().startswith("<think>")


def _settled(text: str) -> str:
    """Return the text without an end that may be the beginning of a tag, or white space before."""
    start = text.rfind("<")
    is_open = start >= 0 and any(tag.startswith(text[start:]) for tag in _TAGS)
    return (text[:start] if is_open else text).rstrip()
