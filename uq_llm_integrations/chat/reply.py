"""What a model's turn consists of, and what reads it from the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for; `arguments` is JSON as the model wrote it."""

    name: str
    arguments: str
    id: str


@dataclass(frozen=True)
class Reply:
    """A whole turn: what is said, what was thought before it, and the calls asked for."""

    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class CallPart:
    """A piece of a call in a stream: the first piece has the name and the id."""

    index: int
    arguments: str = ""
    name: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class ReplyPart:
    """A piece of a turn in a stream."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[CallPart, ...] = field(default=())


class ReplyReader(Protocol):
    """Reads one reply. One that reads a stream keeps its state, so each reply has a reader."""

    @property
    def sampling(self) -> Mapping[str, Any]:
        """The sampling parameters with which the reply has to be drawn."""

    def whole(self, text: str, token_ids: tuple[int, ...]) -> Reply:
        """Read a finished reply."""

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Read what a stream adds."""


class PlainReader:
    """Takes all text for what is said: without tools and without reasoning nothing is hidden."""

    sampling: Mapping[str, Any] = {}

    def whole(self, text: str, token_ids: tuple[int, ...]) -> Reply:
        """Return all of it as content."""
        return Reply(text)

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Return all of it as content."""
        return ReplyPart(text)
