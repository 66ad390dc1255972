"""A thread that does jobs one after the other, and is in no program's way at its end."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_EXIT_SECONDS = 5.0

Jobs = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
"""What is to be done, and None where the thread is to end."""


class WorkThread:
    """Does jobs in their order on one thread, which starts with the first.

    It ends with `stop`, when nothing refers to this object any more, or with the program, which
    waits only seconds for the job that runs: one of an executor would keep it for as long as the
    job takes, such as the load of a large model.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: Jobs = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Return what will be the job's result."""
        future = Future[T]()
        self._jobs.put((future, job))
        with self._lock:
            if self._thread is None:
                self._thread = self._start()
        return future

    def stop(self, timeout: float | None = None) -> None:
        """End the thread after the jobs that wait; blocking, and so many seconds at most."""
        self._jobs.put(None)
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def cancel_waiting(self) -> None:
        """Let no job begin that has not."""
        try:
            while True:
                if job := self._jobs.get_nowait():
                    job[0].cancel()
        except Empty:
            pass

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True)
        thread.start()
        weakref.finalize(self, self._jobs.put, None).atexit = False
        _open_threads[self] = os.getpid()
        return thread


def _work(jobs: Jobs) -> None:
    while job := jobs.get():
        _do(*job)
        del job  # else it, and what it holds, would live until the next one comes


def _do(future: Future[T], job: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = job()
    except BaseException as error:
        future.set_exception(error)
        del future  # they refer to each other
    else:
        future.set_result(result)


_open_threads: weakref.WeakKeyDictionary[WorkThread, int] = weakref.WeakKeyDictionary()
"""The threads that run, with the process that each runs in."""


@atexit.register
def _stop_all() -> None:
    """Wait for the jobs that run: an end in the midst of one could be an ugly one."""
    end = time.monotonic() + _EXIT_SECONDS
    threads = [one for one, pid in _open_threads.items() if pid == os.getpid()]
    for thread in threads:
        thread.cancel_waiting()
    for thread in threads:
        thread.stop(max(end - time.monotonic(), 0))
