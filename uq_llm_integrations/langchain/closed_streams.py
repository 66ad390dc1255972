"""What was drawn of a stream that nobody reads to its end, told to the handlers of its call.

LangChain ends such a call with `on_llm_error`, and gives a chat model's own stream no run manager,
so its reader is noted here before the stream begins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.records import Result
from uq_llm_integrations.report.metadata import uncertainty_metadata

T = TypeVar("T")

Report = Callable[[Result], None]


@dataclass(frozen=True)
class CollectedCall:
    """One answer of a model within a run, with the metadata of its scores and its usage."""

    run_id: UUID
    parent_run_id: UUID | None
    tags: tuple[str, ...]
    text: str
    uncertainty: dict[str, Any]


class ScoredStreamHandler(BaseCallbackHandler, ABC):
    """A handler that also hears what was drawn of a stream which nobody reads to its end."""

    @abstractmethod
    def on_stream_closed(self, call: CollectedCall) -> None:
        """Take what was drawn."""


def closed_reporter(run_manager: BaseRunManager | None) -> Report | None:
    """Return what tells a call's handlers of its stream; None where none wants to hear it."""
    if run_manager is None:
        return _BEGINNING.get()
    ids = run_manager.run_id, run_manager.parent_run_id
    return _reporter(run_manager.handlers, *ids, run_manager.tags)


def _reporter(
    given: Sequence[object], run_id: UUID, parent_run_id: UUID | None, tags: Sequence[str]
) -> Report | None:
    handlers = [one for one in given if isinstance(one, ScoredStreamHandler)]

    def report(result: Result) -> None:
        for one in handlers:
            given = run_id, parent_run_id, tuple(tags), result.text
            one.on_stream_closed(CollectedCall(*given, uncertainty_metadata(result)))

    return report if handlers else None


_BEGINNING: ContextVar[Report | None] = ContextVar("uq_beginning_stream", default=None)


def noted_reader(config: RunnableConfig | None, own: Any) -> tuple[RunnableConfig, Report | None]:
    """Return the configuration of a call with the id of its run, and what tells its handlers.

    `own` are the callbacks of the model itself.
    """
    known = ensure_config(config)
    callbacks, run_id = known.get("callbacks"), known.get("run_id") or uuid4()
    parent, tags = None, list(known.get("tags") or ())
    if isinstance(callbacks, BaseCallbackManager):
        parent, tags = callbacks.parent_run_id, [*callbacks.tags, *tags]
    handlers = dict.fromkeys([*_handlers(callbacks), *_handlers(own)])
    report = _reporter(list(handlers), run_id, parent, list(dict.fromkeys(tags)))
    return cast(RunnableConfig, {**known, "run_id": run_id}), report


def _handlers(callbacks: Any) -> Sequence[object]:
    if isinstance(callbacks, BaseCallbackManager):
        return callbacks.handlers
    return list(callbacks or ())


def reported(stream: Iterator[T], report: Report | None) -> Generator[T, None, None]:
    """Yield what a stream does; what it begins with finds the report."""
    with closing(cast("Generator[T, None, None]", stream)):
        token = _BEGINNING.set(report)
        try:
            first = next(stream, None)
        finally:
            _BEGINNING.reset(token)
        if first is not None:
            yield first
            yield from stream


async def areported(stream: AsyncIterator[T], report: Report | None) -> AsyncGenerator[T, None]:
    """Yield what `reported` does."""
    async with closed_at_end(stream) as pieces:
        token = _BEGINNING.set(report)
        try:
            first = await anext(pieces, None)
        finally:
            _BEGINNING.reset(token)
        if first is not None:
            yield first
            async for piece in pieces:
                yield piece
