"""An event loop on a thread of its own, with doors for blocking callers and for other loops."""

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import TypeVar

from uq_llm_integrations.errors import EngineError

T = TypeVar("T")

CANCEL_SECONDS = 5.0
"""How long an interrupted call waits for its coroutine to end."""

_EXIT_SECONDS = 2.0


class LoopThread:
    """Runs coroutines of callers from any thread or loop on one event loop.

    The thread ends with `stop`, when nothing refers to this object any more, or with the
    interpreter. It does not exist in a forked child, where every use raises EngineError.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Start a loop on a new daemon thread, or serve a loop that runs elsewhere."""
        self.loop = loop or asyncio.new_event_loop()
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        if loop is None:
            self._thread = threading.Thread(
                target=_serve, args=(self.loop,), name="uq-llm-loop", daemon=True
            )
            self._thread.start()
            weakref.finalize(self, _request_stop, self.loop, self._pid).atexit = False
            _open_loops.add(self)

    @property
    def is_here(self) -> bool:
        """Whether the calling code runs on the loop's own thread."""
        return threading.current_thread() is self._thread

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine on the loop and block until it is done.

        Ctrl-C cancels it and waits up to `CANCEL_SECONDS` until it has ended.
        """
        self._check(coroutine)
        if _running_loop() is self.loop:
            coroutine.close()
            raise RuntimeError(
                "a blocking call on the engine's own event loop would wait for itself; "
                "use the async method instead"
            )
        tasks: list[asyncio.Task[T]] = []
        ended: Future[asyncio.Task[T]] = Future()

        def start() -> None:
            tasks.append(self.loop.create_task(coroutine))
            tasks[0].add_done_callback(ended.set_result)

        def cancel() -> None:
            if tasks:
                tasks[0].cancel()
            else:  # interrupted before the start was scheduled
                ended.cancel()

        try:
            self.loop.call_soon_threadsafe(start)
            task = ended.result()
        except BaseException:
            # The loop may be closed, the start may have failed, the task may not end in time.
            with suppress(RuntimeError, CancelledError, TimeoutError):
                self.loop.call_soon_threadsafe(cancel)
                ended.result(CANCEL_SECONDS)
            if not tasks:
                coroutine.close()
            raise
        if task.cancelled():
            raise CancelledError
        return task.result()

    async def arun(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine on the loop from any loop; cancelling the caller cancels it."""
        self._check(coroutine)
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

    def stop(self, timeout: float | None = None) -> None:
        """End the loop and what still runs on it, if the loop is our own."""
        if self._thread and self._thread.is_alive():
            self.request_stop()
            if not self.is_here:
                self._thread.join(timeout)

    def request_stop(self) -> None:
        """Let the loop end as soon as it can, without waiting for that."""
        if self._thread:
            _request_stop(self.loop, self._pid)

    def _check(self, coroutine: Coroutine[object, object, T]) -> None:
        try:
            check_process(self._pid)
        except EngineError:
            coroutine.close()
            raise


def end_own_loop(backend: object) -> None:
    """End the loop that a backend keeps as its `loop`, if it has made one; it may make another."""
    loop = vars(backend).pop("loop", None)
    if loop is not None:
        loop.stop(_EXIT_SECONDS)


async def together(runs: Iterable[Coroutine[object, object, T]]) -> list[T]:
    """Await several at the same time; where one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(run) for run in runs]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        await cancel(tasks)
        raise


async def cancel(tasks: Iterable[asyncio.Task[T]]) -> None:
    """Cancel tasks and wait until they have ended."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


def check_process(pid: int) -> None:
    """Raise EngineError in a process other than the one with this id, which started threads."""
    if pid != os.getpid():
        raise EngineError(
            f"this backend is in use in process {pid}, and its threads do not exist in a forked "
            "child; the child needs a backend of its own, made after the fork"
        )


_open_loops: weakref.WeakSet[LoopThread] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """End what still runs, of which the interpreter would complain while it exits."""
    loops = [loop for loop in _open_loops if loop._pid == os.getpid()]
    for loop in loops:
        loop.request_stop()
    end = time.monotonic() + _EXIT_SECONDS  # of all together
    for loop in loops:
        loop.stop(max(end - time.monotonic(), 0))


def _request_stop(loop: asyncio.AbstractEventLoop, pid: int) -> None:
    if pid == os.getpid():
        with suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(loop.stop)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_all())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _cancel_all() -> None:
    while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        await cancel(tasks)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _next(stream: AsyncIterator[T]) -> T:
    return await anext(stream)


async def _close(stream: AsyncIterator[object]) -> None:
    while getattr(stream, "ag_running", False):  # its last step was cancelled, and cleans up
        await asyncio.sleep(0.001)
    if close := getattr(stream, "aclose", None):
        await close()
