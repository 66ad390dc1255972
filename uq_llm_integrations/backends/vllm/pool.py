"""Which engines run: those with the same arguments are shared, and the last user ends one."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from hashlib import blake2b
from multiprocessing.util import Finalize
from secrets import token_bytes
from typing import TYPE_CHECKING
from weakref import WeakSet

from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.vllm.client_compat import disown, loop_of, remains_of_engine
from uq_llm_integrations.backends.vllm.launch import (
    SpawnedProcesses,
    end_processes,
    start_async_llm,
    why_ready_engine_is_inexact,
)
from uq_llm_integrations.backends.vllm.process import EngineProcess
from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineError,
    EngineLostError,
    EngineStartError,
)
from uq_llm_integrations.identity import canonical
from uq_llm_integrations.secret_values import opened

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

Arguments = Mapping[str, object]

EXIT_SECONDS = 4.0
"""How long all engines together may take to end by themselves at the program's end."""


class EngineStart:
    """One start of an engine, for all who wait for it; without any of them it is cancelled."""

    def __init__(
        self,
        arguments: Arguments,
        prepare: Callable[[], None],
        dead: EngineProcess | None,
        turn: threading.Lock,
    ) -> None:
        """`prepare` makes sure that the model is there; `turn` lets only one start run at a time.

        Where an engine is `dead`, this one starts on its loop: blocking callers go on there.
        """
        self.waiters: list[Future[EngineProcess]] = []
        self.loop = dead.loop if dead else LoopThread()
        self._arguments, self._prepare, self._dead, self._turn = arguments, prepare, dead, turn
        self._spawned = SpawnedProcesses()
        self.engine = asyncio.run_coroutine_threadsafe(self._start(), self.loop.loop)

    def cancel(self) -> None:
        """End the start and its processes, without waiting for that."""
        self.forbid()
        given = (self.engine.done,)
        threading.Thread(target=self._spawned.end, args=given, daemon=True).start()

    def forbid(self) -> None:
        """Let no further process be spawned."""
        self._spawned.cancel()

    async def _start(self) -> EngineProcess:
        engine = None
        try:
            with self._turn:
                self._prepare()
                llm, why_no_probe = start_async_llm(self._arguments, self._spawned)
            engine = EngineProcess(
                llm,
                self.loop,
                why_no_probe,
                owns_loop=self._dead is None,
                restarts=self._dead.restarts + 1 if self._dead else 0,
                remains=remains_of_engine(llm),
            )
            await self._attach_probe(engine)
            self._spawned.check()
        except BaseException:
            # Elsewhere: neither the loop nor the engine can be ended from here. Until the task is
            # done, since `self.engine` may not be set yet.
            given = engine, asyncio.current_task()
            threading.Thread(target=self._discard, args=given, daemon=True).start()
            raise
        if self._dead:
            self._dead.owns_loop, engine.owns_loop = False, True
        return engine

    @staticmethod
    async def _attach_probe(engine: EngineProcess) -> None:
        try:
            await engine.sees_raw()
        except EngineError as error:
            raise EngineStartError(f"the engine's probe did not start: {error}") from error

    def _discard(self, engine: EngineProcess | None, start: asyncio.Task[object]) -> None:
        if engine is not None:
            engine.shutdown()
        elif self._dead is None:
            self.loop.stop()
        self._spawned.end(start.done)


class EnginePool:
    """Engines by their arguments, with the number of their users, and those that are starting."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # the garbage collector may release while it is held
        self._turn = threading.Lock()
        self._engines: dict[str, tuple[EngineProcess, int]] = {}
        self._starts: dict[str, EngineStart] = {}
        self._ready: WeakSet[EngineProcess] = WeakSet()
        self._ends_with_program = self._ends_first = False

    def acquire(
        self, arguments: Arguments, prepare: Callable[[], None], restarts: int = 1
    ) -> EngineProcess:
        """Return the engine with these arguments, blocking while it starts; Ctrl-C ends that."""
        return self.wait(self.reserve(arguments, prepare, restarts))

    def wait(self, waiter: Future[EngineProcess]) -> EngineProcess:
        """Return a reserved engine, blocking; Ctrl-C ends that."""
        try:
            return waiter.result()
        except BaseException:
            self.give_up(waiter)
            raise

    async def aacquire(
        self, arguments: Arguments, prepare: Callable[[], None], restarts: int = 1
    ) -> EngineProcess:
        """Return the engine with these arguments; cancelling the caller ends its start."""
        waiter = self.reserve(arguments, prepare, restarts)
        try:
            return await asyncio.wrap_future(waiter)
        except BaseException:
            self.give_up(waiter)
            raise

    def reserve(
        self, arguments: Arguments, prepare: Callable[[], None], restarts: int = 1
    ) -> Future[EngineProcess]:
        """Return what will be the engine with these arguments, starting it unless it runs.

        Raises EngineLostError where it has died and was started again as often as `restarts` says.
        """
        key, waiter = engine_key(arguments), Future[EngineProcess]()
        with self.lock:
            engine, users = self._engines.get(key, (None, 0))
            if engine is not None and not engine.is_dead:
                self._engines[key] = (engine, users + 1)
                waiter.set_result(engine)
                return waiter
            if start := self._starts.get(key):
                start.waiters.append(waiter)
            else:
                if lost := _lost(engine, restarts):
                    raise lost
                start = EngineStart(arguments, prepare, engine, self._turn)
                start.waiters.append(waiter)
                self._starts[key] = start
                self._end_with_program()
                start.engine.add_done_callback(partial(self._finish, key, start))
        waiter.add_done_callback(partial(self._cancel_unwanted, key, start))
        return waiter

    def lost(self, arguments: Arguments, restarts: int) -> EngineLostError | None:
        """Return the error with which the next call would fail, None where it would not."""
        key = engine_key(arguments)
        with self.lock:
            if key in self._starts:
                return None
            return _lost(self._engines.get(key, (None, 0))[0], restarts)

    def give_up(self, waiter: Future[EngineProcess]) -> None:
        """Need a reserved engine no longer, whether it runs by now or not."""
        if not waiter.cancel() and waiter.exception() is None:
            self.release(waiter.result())

    def release(self, engine: EngineProcess) -> None:
        """Give an engine back."""
        if not engine.is_of_this_process:
            return
        with self.lock:
            for key, (held, users) in list(self._engines.items()):
                if held is engine and users > 1:
                    self._engines[key] = (held, users - 1)
                    return
                if held is engine:
                    del self._engines[key]
        engine.shutdown()

    def end_all(self, seconds: float = EXIT_SECONDS) -> None:
        """End all engines and starts, whoever uses them; what takes longer is killed."""
        end = time.monotonic() + seconds
        with self.lock:
            engines = [*(engine for engine, _ in self._engines.values()), *self._ready]
            self._engines.clear()
            starts = list(self._starts.values())
        for start in starts:
            start.forbid()
        for engine in engines:
            engine.shutdown(max(end - time.monotonic(), 0.5))
        end_processes(max(end - time.monotonic(), 0.5))

    def adopt(self, llm: AsyncLLM) -> EngineProcess:
        """Wrap an engine that the user has started, on the loop it already lives on, if any.

        It is the user's to shut down, unless the program ends before.
        """
        try:
            loop = loop_of(llm)
        except AttributeError as error:
            raise ConfigurationError(
                f"engine is a {type(llm).__name__}; it must be a vllm.v1.engine.async_llm.AsyncLLM"
            ) from error
        engine = EngineProcess(llm, LoopThread(loop), why_ready_engine_is_inexact(llm.vllm_config))
        with self.lock:
            self._ready.add(engine)
            self._end_with_program()
            self._end_first()
        return engine

    def _end_with_program(self) -> None:
        """End the engines before multiprocessing, at the program's end, waits for its children.

        vLLM's own end of them may come later, and so never: that depends on what is imported first.
        """
        if not self._ends_with_program:
            self._ends_with_program = True
            Finalize(None, self.end_all, exitpriority=1)

    def _end_first(self) -> None:
        """End the engines before vLLM does, which would let their loop take it for a failure.

        It has registered itself by the time that an engine runs, and the last one comes first.
        """
        if not self._ends_first:
            self._ends_first = True
            atexit.register(self._end_here, os.getpid())

    def _end_here(self, pid: int) -> None:
        if pid == os.getpid():
            self.end_all()

    def disown_all(self) -> None:
        """Forget in a forked child all engines, which are its parent's, and locks held there."""
        engines = [*(engine for engine, _ in self._engines.values()), *self._ready]
        EnginePool.__init__(self)
        for engine in engines:
            disown(engine.llm)

    def _finish(self, key: str, start: EngineStart, done: Future[EngineProcess]) -> None:
        error = EngineStartError("it was cancelled") if done.cancelled() else done.exception()
        with self.lock:
            if self._starts.get(key) is start:
                del self._starts[key]
            waiters = [one for one in start.waiters if one.set_running_or_notify_cancel()]
            if error is None and waiters:
                self._end_first()
                self._engines[key] = (done.result(), len(waiters))
        if error is None and not waiters:
            done.result().shutdown()
        for waiter in waiters:
            if error is None:
                waiter.set_result(done.result())
            else:
                waiter.set_exception(error)

    def _cancel_unwanted(self, key: str, start: EngineStart, waiter: Future[EngineProcess]) -> None:
        if not waiter.cancelled():
            return
        with self.lock:
            start.waiters.remove(waiter)
            is_unwanted = not start.waiters
            if is_unwanted and self._starts.get(key) is start:
                del self._starts[key]
        if is_unwanted:
            start.cancel()


def _lost(engine: EngineProcess | None, restarts: int) -> EngineLostError | None:
    if engine is None or not engine.is_dead or engine.restarts < restarts:
        return None
    return EngineLostError(
        f"{engine.failure or 'the engine died'}; it is not started again (restart_engine is "
        f"{restarts}, restarts so far: {engine.restarts}): close() all that use it, or allow more"
    )


_KEY = token_bytes()
"""What keys of engines are made with: in this process, and of no use to guess a secret by."""


def engine_key(arguments: Arguments) -> str:
    """Return what is the same for the same arguments, secrets too: such engines are shared."""
    return blake2b(canonical(opened(arguments)).encode(), key=_KEY).hexdigest()


POOL = EnginePool()
os.register_at_fork(after_in_child=POOL.disown_all)
