"""Streams that can be closed whoever reads them, and whoever else closes them."""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from uq_llm_integrations.backends.interruption import Interruption, OpenCalls

T = TypeVar("T")


async def close_stream(stream: AsyncIterator[object]) -> None:
    """Close a stream; where a step of it is under way, or another close, once that has ended."""
    while getattr(stream, "ag_running", False):
        await asyncio.sleep(0.001)
    if close := getattr(stream, "aclose", None):
        await close()


class closed_at_end(AsyncIterator[T], Generic[T]):  # noqa: N801  # as contextlib.aclosing
    """Reads a stream within a block, at the end of which it is closed.

    The event loop does not know of the stream: at its own end a loop closes all that it knows of
    at once, and this one would be closed by the loop and by the block at the same time.
    """

    def __init__(self, stream: AsyncIterator[T]) -> None:
        self._stream, self._is_new = stream, True
        if isinstance(stream, ClosableStream):
            stream.is_within = True

    def __anext__(self) -> Awaitable[T]:
        if not self._is_new:
            return self._stream.__anext__()
        self._is_new = False
        return unknown_to_loop(self._stream.__anext__)

    async def aclose(self) -> None:
        """Close the stream."""
        await close_stream(self._stream)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await close_stream(self._stream)


def unknown_to_loop(begin: Callable[[], Awaitable[T]]) -> Awaitable[T]:
    """Begin the first step of a stream without the hooks by which the loop would note it."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return begin()
    finally:
        sys.set_asyncgen_hooks(*hooks)


async def bunched(stream: AsyncIterator[T], most: int = 64) -> AsyncGenerator[list[T], None]:
    """Yield the pieces that are there at the same time together, at most so many.

    It is a step ahead of its reader, no more, and closes the stream.
    """
    async with closed_at_end(stream) as pieces:
        step = asyncio.ensure_future(_next(pieces))
        try:
            while True:
                bunch = [await step]
                step = asyncio.ensure_future(_next(pieces))
                while len(bunch) < most and await _is_there(step):
                    bunch.append(step.result())
                    step = asyncio.ensure_future(_next(pieces))
                yield bunch
        except StopAsyncIteration:
            return
        finally:
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)


async def _is_there(step: asyncio.Task[T]) -> bool:
    """Return whether a step that has just begun waits for nothing, and has a piece."""
    await asyncio.sleep(0)
    return step.done() and step.exception() is None


async def _next(stream: AsyncIterator[T]) -> T:
    return await anext(stream)


class _ClosedError(Exception):
    """The stream was closed while this step of it was under way."""


class ClosableStream(AsyncGenerator[T, None]):
    """A stream that may be closed while another task reads it: then the reader is at its end."""

    def __init__(self, stream: AsyncGenerator[T, None]) -> None:
        self._stream, self._step = stream, Interruption()
        self.is_within = False
        """Whether another stream closes it, see `closed_at_end`."""

    async def asend(self, value: None) -> T:
        """Return the next piece."""
        try:
            with self._step:
                if self.is_within:
                    return await unknown_to_loop(self._stream.__anext__)
                return await self._stream.__anext__()
        except _ClosedError:
            raise StopAsyncIteration from None

    async def athrow(self, *error: Any) -> T:  # all of its forms
        """Raise an error where the stream is."""
        return await self._stream.athrow(*error)

    async def aclose(self) -> None:
        """End the step that is under way, and the stream."""
        self._step.interrupt(_ClosedError())
        await close_stream(self._stream)


def stream_of(calls: OpenCalls, stream: AsyncGenerator[T, None]) -> ClosableStream[T]:
    """Return a stream each step of which is a call."""
    return ClosableStream(_called(calls, stream))


async def _called(calls: OpenCalls, stream: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    async with closed_at_end(stream) as pieces:
        while True:
            with calls.call():
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
            yield piece
