"""What a stream has shown of a reply, and what the whole of it has beyond that."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from uq_llm_integrations.chat.reply import CallPart, Reply, ReplyPart


@dataclass
class Shown:
    """Keeps what a stream has shown, since it can read less out of a damaged reply than the end."""

    _before: str = ""
    _content: str = ""
    _ids: dict[int, str] = field(default_factory=dict)
    _calls: int = 0

    def add(self, part: ReplyPart) -> None:
        """Note what is shown, the last part as well."""
        self._before = self._content
        self._content += part.content
        self._ids |= {one.index: one.id for one in part.calls if one.id}
        self._calls = max([self._calls, *(one.index + 1 for one in part.calls)])

    def with_ids(self, reply: Reply) -> Reply:
        """Return a reply with the ids by which its calls were shown."""
        calls = enumerate(reply.tool_calls)
        return replace(
            reply, tool_calls=tuple(replace(one, id=self._ids.get(i, one.id)) for i, one in calls)
        )

    def completed(self, part: ReplyPart, reply: Reply) -> ReplyPart:
        """Return the last part so that all parts say what the whole reply does, where they can."""
        content, before = part.content, self._before
        if reply.content.startswith(before):
            content = reply.content.removeprefix(before)
        begun = {one.index for one in part.calls if one.name}  # and ended: they are whole here
        calls = tuple(
            CallPart(index, one.arguments, one.name, one.id)
            for index, one in enumerate(reply.tool_calls)
            if index >= self._calls or index in begun
        )
        going_on = tuple(one for one in part.calls if one.index not in begun)
        return replace(part, content=content, calls=going_on + calls)
