"""Streams that can be closed whoever reads them, and whoever else closes them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, TypeVar

from uq_llm_integrations.backends.interruption import Interruption, OpenCalls

T = TypeVar("T")
S = TypeVar("S", bound=AsyncIterator[object])


async def close_stream(stream: AsyncIterator[object]) -> None:
    """Close a stream; where a step of it is under way, or another close, once that has ended."""
    while getattr(stream, "ag_running", False):
        await asyncio.sleep(0.001)
    if close := getattr(stream, "aclose", None):
        await close()


class closed_at_end(AbstractAsyncContextManager[S], Generic[S]):  # noqa: N801  # as aclosing
    """Closes a stream at the end of the block, as `contextlib.aclosing` does.

    At the end of an event loop all of its streams are closed at once, so that another may be
    closing this one already.
    """

    def __init__(self, stream: S) -> None:
        self._stream = stream

    async def __aenter__(self) -> S:
        return self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await close_stream(self._stream)


class _ClosedError(Exception):
    """The stream was closed while this step of it was under way."""


class ClosableStream(AsyncGenerator[T, None]):
    """A stream that may be closed while another task reads it: then the reader is at its end."""

    def __init__(self, stream: AsyncGenerator[T, None]) -> None:
        self._stream, self._step = stream, Interruption()

    async def asend(self, value: None) -> T:
        """Return the next piece."""
        try:
            with self._step:
                return await self._stream.asend(value)
        except _ClosedError:
            raise StopAsyncIteration from None

    async def athrow(self, *error: object) -> T:  # all of its forms
        """Raise an error where the stream is."""
        return await self._stream.athrow(*error)  # type: ignore[call-overload]

    async def aclose(self) -> None:
        """End the step that is under way, and the stream."""
        self._step.interrupt(_ClosedError())
        await close_stream(self._stream)


def stream_of(calls: OpenCalls, stream: AsyncGenerator[T, None]) -> ClosableStream[T]:
    """Return a stream each step of which is a call."""
    return ClosableStream(_called(calls, stream))


async def _called(calls: OpenCalls, stream: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    async with closed_at_end(stream):
        while True:
            with calls.call():
                try:
                    piece = await anext(stream)
                except StopAsyncIteration:
                    return
            yield piece
