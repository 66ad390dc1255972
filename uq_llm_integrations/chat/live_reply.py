"""What a stream has shown of a reply whose whole is read at the end."""

from __future__ import annotations

from collections.abc import Sequence

from uq_llm_integrations.chat.live_text import LiveContent
from uq_llm_integrations.chat.reply import Reply, ReplyPart, call_parts


class LiveReply:
    """Keeps what has come and what was shown of it; `marks` are those of calls."""

    def __init__(self, marks: Sequence[str]) -> None:
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._live = LiveContent(marks)
        self._content: list[str] = []
        self._reasoning: list[str] = []

    def note(self, text: str, token_ids: tuple[int, ...]) -> None:
        """Note what has come."""
        self._texts.append(text)
        self._token_ids.extend(token_ids)

    def all(self) -> tuple[str, tuple[int, ...]]:
        """Return all that has come."""
        return "".join(self._texts), tuple(self._token_ids)

    def shown(self, reasoning: str, content: str) -> ReplyPart:
        """Return what can be shown of the reasoning and of what follows it."""
        part = ReplyPart(self._live.add(content), reasoning)
        self._content.append(part.content)
        self._reasoning.append(part.reasoning)
        return part

    def ended(self, reply: Reply) -> ReplyPart:
        """Return the last part: what a reply has beyond what was shown."""
        content = reply.content.removeprefix("".join(self._content))
        reasoning = (reply.reasoning or "").removeprefix("".join(self._reasoning))
        return ReplyPart(content, reasoning, call_parts(reply.tool_calls))
