"""LangChain's event protocol, with the scores of all tokens in what ends a message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.outputs import ChatGenerationChunk
from langchain_core.utils._merge import merge_dicts
from langchain_core.utils.utils import LC_ID_PREFIX


class _Joined:
    """Joins the metadata of all chunks: the protocol keeps only that of the last one."""

    def __init__(self) -> None:
        self._metadata: dict[str, Any] = {}

    def noted(self, chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        self._metadata = merge_dicts(self._metadata, dict(chunk.generation_info or {}))
        return chunk

    def completed(self, event: Any) -> Any:
        if event["event"] != "message-finish":
            return event
        return {**event, "metadata": {**event.get("metadata", {}), **self._metadata}}


def chat_events(chunks: Iterator[ChatGenerationChunk], run_manager: Any) -> Iterator[Any]:
    """Yield the protocol's events."""
    from langchain_core.language_models._compat_bridge import chunks_to_events

    joined = _Joined()
    noted = (joined.noted(chunk) for chunk in chunks)
    for event in chunks_to_events(noted, message_id=_message_id(run_manager)):
        yield joined.completed(event)


async def achat_events(
    chunks: AsyncIterator[ChatGenerationChunk], run_manager: Any
) -> AsyncIterator[Any]:
    """Yield the protocol's events."""
    from langchain_core.language_models._compat_bridge import achunks_to_events

    joined = _Joined()
    noted = (joined.noted(chunk) async for chunk in chunks)
    async for event in achunks_to_events(noted, message_id=_message_id(run_manager)):
        yield joined.completed(event)


def _message_id(run_manager: Any) -> str | None:
    return f"{LC_ID_PREFIX}-{run_manager.run_id}" if run_manager else None
