"""Ending what a task waits for with an error, and ending all calls of what is closed."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType

from uq_llm_integrations.errors import EngineClosedError


class Interruption:
    """While it is open, others can end what the task waits for, with an error of theirs.

    It can be opened again; what comes between two of them is not interrupted.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._error: BaseException | None = None
        self._cancelled_before = 0

    def interrupt(self, error: BaseException) -> None:
        """Raise an error in the task, unless it waits for something else; on the task's loop."""
        if self._task is not None and self._error is None:
            self._error = error
            self._task.cancel()

    def __enter__(self) -> None:
        self._task, self._error = asyncio.current_task(), None
        self._cancelled_before = self._task.cancelling() if self._task else 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._error is None or task is None:
            return
        is_own = task.uncancel() <= self._cancelled_before  # nobody else has cancelled it, too
        if is_own and kind is not None and issubclass(kind, Exception | asyncio.CancelledError):
            raise self._error from None


class OpenCalls:
    """The calls that are under way on something, all of which end when it is closed."""

    def __init__(self) -> None:
        self.is_closed = False
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._ends: dict[object, Callable[[], object]] = {}

    def check(self) -> None:
        """Raise EngineClosedError once it is closed."""
        if self.is_closed:
            raise closed_before()

    def close(self) -> None:
        """Let all calls that are under way raise EngineClosedError, and all later ones."""
        with self._lock:
            self.is_closed = True
            ends = list(self._ends.values()) if self._pid == os.getpid() else []
        for end in ends:
            with suppress(RuntimeError):  # the call's loop is closed, and so it has ended
                end()

    def call(self) -> AbstractContextManager[None]:
        """What is awaited within is a call."""
        return _OpenCall(self)

    @contextmanager
    def blocking(self, cancel: Callable[[], object]) -> Iterator[None]:
        """What blocks within is a call; `cancel` lets it raise CancelledError."""
        call = object()
        self.note(call, cancel)
        try:
            yield
        except CancelledError as error:
            if not self.is_closed:
                raise
            raise closed_meanwhile() from error
        finally:
            self.forget(call)

    def note(self, call: object, end: Callable[[], object]) -> None:
        """Note a call that begins, and what ends it."""
        with self._lock:
            self.check()
            self._ends[call] = end

    def forget(self, call: object) -> None:
        """Note that a call has ended."""
        with self._lock:
            del self._ends[call]


class _OpenCall(AbstractContextManager[None]):
    """A call on the running loop; a class, since each step of a stream is one."""

    def __init__(self, calls: OpenCalls) -> None:
        self._calls, self._interruption = calls, Interruption()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        self._calls.note(self, self._end)
        self._interruption.__enter__()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._interruption.interrupt, closed_meanwhile())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._interruption.__exit__(kind, error, traceback)
        finally:
            self._calls.forget(self)


def closed_before() -> EngineClosedError:
    """Return the error of a call that comes too late."""
    return EngineClosedError("the backend is closed; make a new one for further calls")


def closed_meanwhile() -> EngineClosedError:
    """Return the error of a call that was under way."""
    return EngineClosedError("the backend was closed while this call was under way")
