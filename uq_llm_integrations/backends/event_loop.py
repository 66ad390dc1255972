"""An event loop on a thread of its own, with doors for blocking callers and for other loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines of callers from any thread or loop on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Start a loop on a new daemon thread, or serve a loop that runs elsewhere."""
        self.loop = loop or asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        if loop is None:
            self._thread = threading.Thread(target=self._serve, name="uq-llm-loop", daemon=True)
            self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether the calling code runs on the loop's own thread."""
        return threading.current_thread() is self._thread

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and block until it is done; Ctrl-C cancels it."""
        if _running_loop() is self.loop:
            coroutine.close()
            raise RuntimeError(
                "a blocking call on the engine's own event loop would wait for itself; "
                "use the async method instead"
            )
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop from any loop; cancelling the caller cancels it."""
        if _running_loop() is self.loop:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    async def aiterate(self, stream: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """Iterate from any loop over a stream that lives on this one, closing it at the end."""
        try:
            while True:
                try:
                    piece = await self.arun(_next(stream))
                except StopAsyncIteration:
                    return
                yield piece
        finally:
            await self.arun(_close(stream))

    def iterate(self, stream: AsyncIterator[T]) -> Generator[T, None, None]:
        """Iterate, blocking, over a stream that lives on this loop, closing it at the end."""
        try:
            while True:
                try:
                    piece = self.run(_next(stream))
                except StopAsyncIteration:
                    return
                yield piece
        finally:
            self.run(_close(stream))

    def stop(self) -> None:
        """End the loop and what still runs on it, if the loop is our own."""
        if self._thread and self._thread.is_alive():
            self.run(_cancel_all())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _next(stream: AsyncIterator[T]) -> T:
    return await anext(stream)


async def _close(stream: AsyncIterator[Any]) -> None:
    if close := getattr(stream, "aclose", None):
        await close()
