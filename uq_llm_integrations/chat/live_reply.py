"""What a stream has shown of a reply whose whole is read at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from uq_llm_integrations.chat.live_text import LiveContent, continued_text
from uq_llm_integrations.chat.reply import Reply, ReplyPart, call_parts
from uq_llm_integrations.chat.thought_text import ThoughtText


class LiveReply:
    """Shows of a reply what comes before the first of the `marks` of calls.

    What was shown goes by the text alone and not by its pieces, so that a whole reply can be made
    to go on from it. Without `shows_content`, the reasoning alone is shown.
    """

    def __init__(
        self, marks: Sequence[str], thought: ThoughtText | None, *, shows_content: bool = True
    ) -> None:
        self._live, self._thought = LiveContent(marks), thought
        self._shows_content = shows_content
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._shown: list[ReplyPart] = []

    def note(self, text: str, token_ids: tuple[int, ...]) -> None:
        """Note what has come."""
        self._texts.append(text)
        self._token_ids.extend(token_ids)

    def all(self) -> tuple[str, tuple[int, ...]]:
        """Return all that has come."""
        return "".join(self._texts), tuple(self._token_ids)

    def add(self, text: str) -> ReplyPart:
        """Return what can be shown by this piece."""
        thought = ""
        if self._thought is not None:
            thought, text = self._thought.add(text, is_last=False)
        content = self._live.add(text) if self._shows_content else ""
        self._shown.append(ReplyPart(content, thought))
        return self._shown[-1]

    def ended(self, reply: Reply) -> ReplyPart:
        """Return the last part: what a reply has beyond what was shown."""
        content = reply.content.removeprefix("".join(one.content for one in self._shown))
        shown = "".join(one.reasoning for one in self._shown)
        reasoning = (reply.reasoning or "").removeprefix(shown)
        return ReplyPart(content, reasoning, call_parts(reply.tool_calls))


def continued_reply(shown: ReplyPart, reply: Reply) -> Reply:
    """Return a reply that goes on from what is shown of its text."""
    reasoning = continued_text(shown.reasoning, reply.reasoning or "")
    content = continued_text(shown.content, reply.content)
    return replace(reply, content=content, reasoning=reasoning or None)
