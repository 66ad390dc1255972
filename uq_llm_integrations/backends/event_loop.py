"""An event loop on a thread of its own, with doors for blocking callers and for other loops."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from uq_llm_integrations.backends.interruption import closed_before, closed_meanwhile
from uq_llm_integrations.backends.streams import close_stream, closed_at_end
from uq_llm_integrations.errors import EngineClosedError, EngineError

T = TypeVar("T")

CANCEL_SECONDS = 5.0
"""How long an interrupted call waits for its coroutine to end."""

_EXIT_SECONDS = 2.0


class _Call(Generic[T]):
    """A coroutine that runs on a loop for a caller elsewhere. All but `result` runs on the loop."""

    def __init__(self, coroutine: Coroutine[object, object, T], calls: _Calls) -> None:
        self._coroutine, self._calls = coroutine, calls
        self._task: asyncio.Task[T] | None = None
        self._is_cancelled = False
        self.ended = Future[None]()
        """Done once the task has ended, or can begin no more; its value is nothing."""
        self.ended.set_running_or_notify_cancel()  # so that none who waits for it cancels it

    def start(self) -> None:
        if self._is_cancelled or self._calls.are_ending:
            self.end()
        else:
            self._task = asyncio.get_running_loop().create_task(self._coroutine)
            self._task.add_done_callback(self._note_end)

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._task:
            self._task.cancel()
        else:  # the caller was interrupted before the start was scheduled
            self.end()

    def end(self) -> None:
        """Let the caller go on, whatever has become of the task."""
        if self._task is None:
            self._coroutine.close()
        if not self.ended.done():
            self.ended.set_result(None)

    def result(self) -> T:
        """Return what the coroutine has returned, once it has ended."""
        if self._task and self._task.done() and not self._task.cancelled():
            return self._task.result()
        if self._calls.are_ending:
            raise closed_meanwhile()
        raise CancelledError

    def _note_end(self, task: asyncio.Task[T]) -> None:
        task.cancelled() or task.exception()  # it is no error that nobody has looked at
        self._calls.forget(self)
        self.end()


class _Calls:
    """The calls that a loop has begun for others and not ended; with it, all of them end."""

    def __init__(self) -> None:
        self.are_ending = False
        self._lock = threading.Lock()
        self._open: set[_Call[Any]] | None = set()

    def begin(self, call: _Call[T], loop: asyncio.AbstractEventLoop) -> None:
        """Start a call on the loop, or raise EngineClosedError where that has ended."""
        try:
            with self._lock:
                if self._open is not None:
                    self._open.add(call)
            loop.call_soon_threadsafe(call.start)
        except RuntimeError as error:
            self.are_ending = True
            call.end()
            raise closed_before() from error

    def forget(self, call: _Call[T]) -> None:
        """Note that a call has ended."""
        with self._lock:
            if self._open is not None:
                self._open.discard(call)

    def end_all(self) -> None:
        """Let all callers go on, once the loop is closed."""
        with self._lock:
            calls, self._open = self._open or set(), None
        for call in calls:
            call.end()


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
        self._calls = _Calls()
        if loop is None:
            given = self.loop, self._calls
            self._thread = threading.Thread(
                target=_serve, args=given, name="uq-llm-loop", daemon=True
            )
            self._thread.start()
            weakref.finalize(self, _request_stop, *given, self._pid).atexit = False
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
        call = _Call(coroutine, self._calls)
        try:
            self._calls.begin(call, self.loop)
            call.ended.result()
        except BaseException:
            # The loop may be closed, and the task may not end in time.
            with suppress(RuntimeError, TimeoutError):
                self.loop.call_soon_threadsafe(call.cancel)
                call.ended.result(CANCEL_SECONDS)
            raise
        return call.result()

    async def arun(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine on the loop from any loop; cancelling the caller cancels it."""
        self._check(coroutine)
        if _running_loop() is self.loop:
            return await coroutine
        call = _Call(coroutine, self._calls)
        self._calls.begin(call, self.loop)
        try:
            await asyncio.wrap_future(call.ended)
        except asyncio.CancelledError:
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(call.cancel)
            raise
        return call.result()

    async def aiterate(self, stream: AsyncIterator[T]) -> AsyncGenerator[T, None]:
        """Iterate from any loop over a stream that lives on this one, closing it at the end."""
        if _running_loop() is self.loop:
            async with closed_at_end(stream) as pieces:
                async for piece in pieces:
                    yield piece
            return
        try:
            while True:
                try:
                    piece = await self.arun(_next(stream))
                except StopAsyncIteration:
                    return
                yield piece
        finally:
            with suppress(EngineClosedError):  # the stream has ended with the loop
                await self.arun(close_stream(stream))

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
            with suppress(EngineClosedError):  # the stream has ended with the loop
                self.run(close_stream(stream))

    def stop(self, timeout: float | None = None) -> None:
        """End the loop and what still runs on it, if the loop is our own."""
        if self._thread and self._thread.is_alive():
            self.request_stop()
            if not self.is_here:
                self._thread.join(timeout)

    def request_stop(self) -> None:
        """Let the loop end as soon as it can, without waiting for that."""
        if self._thread:
            _request_stop(self.loop, self._calls, self._pid)

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


def _request_stop(loop: asyncio.AbstractEventLoop, calls: _Calls, pid: int) -> None:
    def stop() -> None:
        if not calls.are_ending:  # else it would stop what ends them
            loop.stop()

    if pid == os.getpid():
        with suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(stop)


def _serve(loop: asyncio.AbstractEventLoop, calls: _Calls) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        calls.are_ending = True
        loop.run_until_complete(_cancel_all())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
        calls.end_all()


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
