"""LangChain's event protocol, with all tokens' scores, and the calls of the whole reply."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.outputs import ChatGenerationChunk
from langchain_core.utils._merge import merge_dicts
from langchain_core.utils.utils import LC_ID_PREFIX

from uq_llm_integrations.langchain.chunks import ReplyChunk


class _Joined:
    """Joins the metadata of all chunks: the protocol keeps only that of the last one.

    It also takes any JSON for the arguments of a call, and leaves out what is none in a last chunk,
    so that the calls are those of the whole reply.
    """

    def __init__(self) -> None:
        self._metadata: dict[str, Any] = {}
        self._calls: dict[str | None, dict[str, Any]] = {}
        self._blocks = 0

    def noted(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        self._metadata = merge_dicts(self._metadata, dict(chunk.generation_info or {}))
        if isinstance(chunk.message, ReplyChunk):
            calls, invalid = chunk.message.whole_calls or ((), ())
            self._calls |= {one["id"]: dict(one) for one in (*calls, *invalid)}
        return chunk

    def completed(self, event: Any) -> Iterator[Any]:
        """Yield an event, changed or with others before it."""
        if event["event"] == "content-block-finish":
            self._blocks = max(self._blocks, event["index"] + 1)
            content = event["content"]
            event = {**event, "content": self._calls.pop(content.get("id"), content)}
        elif event["event"] == "message-finish":
            for call in self._calls.values():
                yield from self._block(call)
            event = {**event, "metadata": {**event.get("metadata", {}), **self._metadata}}
        yield event

    def _block(self, call: dict[str, Any]) -> Iterator[Any]:
        index, named = self._blocks, {key: call[key] for key in ("type", "id", "name")}
        self._blocks += 1
        yield {"event": "content-block-start", "index": index, "content": named}
        yield {"event": "content-block-finish", "index": index, "content": call}


def chat_events(chunks: Iterator[ChatGenerationChunk], run_manager: Any) -> Iterator[Any]:
    """Yield the protocol's events."""
    from langchain_core.language_models._compat_bridge import chunks_to_events

    joined = _Joined()
    noted = (joined.noted(chunk) for chunk in chunks)
    for event in chunks_to_events(noted, message_id=_message_id(run_manager)):
        yield from joined.completed(event)


async def achat_events(
    chunks: AsyncIterator[ChatGenerationChunk], run_manager: Any
) -> AsyncIterator[Any]:
    """Yield the protocol's events."""
    from langchain_core.language_models._compat_bridge import achunks_to_events

    joined = _Joined()
    noted = (joined.noted(chunk) async for chunk in chunks)
    async for event in achunks_to_events(noted, message_id=_message_id(run_manager)):
        for one in joined.completed(event):
            yield one


def _message_id(run_manager: Any) -> str | None:
    return f"{LC_ID_PREFIX}-{run_manager.run_id}" if run_manager else None
