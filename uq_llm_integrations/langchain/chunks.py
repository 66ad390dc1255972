"""Pieces of a message whose sum has the calls that the whole reply has.

LangChain reads the calls out of the joined pieces and mends the arguments of one that was cut, so
that half a call looks like one that can be made. Here the last piece alone has calls, and the sum
ends with what `invoke` returns. Where others add up copies of the pieces, a call that cannot be
made stays one: its arguments come as a JSON string of what was written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessageChunk, InvalidToolCall, ToolCall
from langchain_core.messages.tool import tool_call_chunk
from pydantic import PrivateAttr

Calls = tuple[list[ToolCall], list[InvalidToolCall]]
"""The calls that can be made, and those that cannot."""


class ReplyChunk(AIMessageChunk):
    """A piece of a message, serialized and converted as any other; the last has all calls."""

    _whole: Calls | None = PrivateAttr(default=None)

    @classmethod
    def lc_id(cls) -> list[str]:
        """Return the id of the class that it is loaded as."""
        return AIMessageChunk.lc_id()

    @property
    def whole_calls(self) -> Calls | None:
        """The calls of the whole reply, in the last piece."""
        return self._whole

    def end_with(self, calls: Calls) -> None:
        """Note the calls of the whole reply in its last piece."""
        self._whole = calls
        made = [(one, json.dumps(one["args"], ensure_ascii=False)) for one in calls[0]]
        damaged = [(one, json.dumps(one["args"] or "", ensure_ascii=False)) for one in calls[1]]
        self.tool_call_chunks = [
            tool_call_chunk(name=one["name"], args=text, id=one["id"], index=index)
            for index, (one, text) in enumerate([*made, *damaged])
        ]
        self.tool_calls, self.invalid_tool_calls = calls

    def __add__(self, other: Any) -> BaseMessageChunk:  # type: ignore[override]  # LangChain overloads it
        """Return the sum of this and later pieces."""
        others = other if isinstance(other, list | tuple) else (other,)
        return _ended(super().__add__(other), (self, *others))

    def __radd__(self, other: Any) -> BaseMessageChunk:
        """Return the sum of an earlier piece and this one."""
        if not isinstance(other, AIMessageChunk):
            return NotImplemented
        return _ended(AIMessageChunk.__add__(other, self), (self,))


def _ended(joined: BaseMessageChunk, pieces: Iterable[Any]) -> BaseMessageChunk:
    """Return a sum with the calls of the whole reply where the last piece is part of it."""
    found = (one.whole_calls for one in pieces if isinstance(one, ReplyChunk))
    calls = next((one for one in found if one is not None), None)
    if calls is None:
        return joined
    # Not of this class, which LangChain's conversion to a message does not know.
    whole = AIMessageChunk(**joined.__dict__)
    whole.tool_calls, whole.invalid_tool_calls = calls
    if isinstance(whole.content, list):
        invalid = {one["id"]: one for one in calls[1]}
        whole.content = [_block(one, invalid) for one in whole.content]
    return whole


def _block(block: Any, invalid: dict[str | None, InvalidToolCall]) -> Any:
    is_call = isinstance(block, dict) and block.get("type") == "tool_call"
    return dict(invalid[block["id"]]) if is_call and block.get("id") in invalid else block
