"""A running engine: shared by all who ask for the same one, watched, and shut down in the end."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.vllm.errors import translated_errors
from uq_llm_integrations.backends.vllm.launch import start_async_llm, why_ready_engine_is_inexact
from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineDeadError,
    EngineTimeoutError,
)

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

T = TypeVar("T")

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 20.0


class EngineProcess:
    """One AsyncLLM on the loop it lives on. All methods but `shutdown` run on that loop."""

    def __init__(self, llm: AsyncLLM, loop: LoopThread, why_no_probe: str | None) -> None:
        self.llm = llm
        self.loop = loop
        self._owns_loop = True
        self.why_no_probe = why_no_probe
        self.failure: EngineDeadError | None = None
        self._numbers = itertools.count()
        self._waiting = 0
        self._patient: list[float] = []
        self._watchdog: asyncio.Task[None] | None = None
        self._wanted: dict[str, asyncio.Future[bytes]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._attaching: asyncio.Task[bool] | None = None
        self.sharing: asyncio.Task[None] | None = None
        """The check whether the model can be looked into, once someone has asked for it."""
        self.why_not_shared: str | None = None
        """What the check has found against it."""

    @property
    def is_dead(self) -> bool:
        """Whether no call can succeed any more."""
        return self.failure is not None or bool(self.llm.errored)

    @property
    def can_sleep(self) -> bool:
        """Whether the engine was started with vLLM's sleep mode."""
        return bool(self.llm.model_config.enable_sleep_mode)

    def new_id(self) -> str:
        """Return an id that no other request of this engine has."""
        return f"uq-{os.getpid()}-{next(self._numbers)}"

    async def outputs(
        self, prompt_ids: list[int], params: SamplingParams, request_id: str, deadline: float
    ) -> AsyncGenerator[RequestOutput, None]:
        """Yield the engine's outputs; leaving early makes the engine stop working on the request.

        Raises EngineDeadError within seconds of the engine's death and EngineTimeoutError where it
        gives no sign of life for `deadline` seconds.
        """
        from vllm.inputs.engine import tokens_input

        with translated_errors(), self._watched(deadline):
            if self.failure:
                raise self.failure
            stream = self.llm.generate(tokens_input(prompt_ids), params, request_id)
            try:
                async for output in stream:
                    yield output
            finally:
                await stream.aclose()

    async def sees_raw(self) -> bool:
        """Whether the probe sees the logits that the engine's log-probabilities are taken of.

        Otherwise it sees logits that some sampling parameters have changed already.
        """
        if self.why_no_probe:
            return False
        if self._attaching is None:
            self._attaching = asyncio.create_task(self._attach())
        return await asyncio.shield(self._attaching)

    async def _attach(self) -> bool:
        with translated_errors():
            return all(await self.llm.collective_rpc("uq_attach"))

    async def take(self, name: str, deadline: float, read: Callable[[bytes], T]) -> T:
        """Return what the probe kept under a name; those wanted at once share one call."""
        future = asyncio.get_running_loop().create_future()
        self._wanted[name] = future
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_wanted(deadline))
        with translated_errors():
            return read(await future)

    async def ask(self, method: str, *args: Any, deadline: float, patience: float = 1) -> Any:
        """Call the worker extension and return the first worker's answer.

        Raises what `outputs` raises where the engine dies or gives no sign of life. A call that may
        take long has `patience`: until it is answered, the deadline is so many times as far.
        """
        with translated_errors(), self._watched(deadline), self._patience(deadline * patience):
            if self.failure:
                raise self.failure
            call = asyncio.create_task(self.llm.collective_rpc(method, args=args))
            watchdog = self._watchdog or call  # it ends before its time where the engine does
            try:
                await asyncio.wait({call, watchdog}, return_when=asyncio.FIRST_COMPLETED)
                if self.failure:
                    raise self.failure
                return (await call)[0]
            finally:
                call.cancel()

    def forget_rows(self, *names: str) -> None:
        """Let the probe drop what it kept of a request that was cancelled."""
        with suppress(RuntimeError):  # the loop is closing, and the engine with it
            forgetting = asyncio.create_task(self._call("uq_take", list(names)))
            forgetting.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def recorded(self) -> list[str]:
        """Return the requests of which the probe still keeps something."""
        names: list[str] = await self._call("uq_recorded")
        return names

    def hand_on_loop(self) -> None:
        """Leave the loop to the engine that has started on it: blocking callers go on there."""
        self._owns_loop = False

    def shutdown(self) -> None:
        """End the engine's processes and its loop, unless that was handed on."""
        if self.loop.is_here:  # the garbage collector may call from anywhere
            threading.Thread(target=self.shutdown).start()
            return
        self.failure = self.failure or EngineDeadError("the engine was shut down")
        if self._owns_loop:
            self.loop.stop()  # first, so that nothing takes the processes' end for a failure
        self.llm.shutdown(timeout=SHUTDOWN_SECONDS)
        # vLLM's __del__ calls this once more, at a time when its modules may be gone.
        self.llm.shutdown = _nothing

    async def _read_wanted(self, deadline: float) -> None:
        await asyncio.sleep(0)  # let others that finished in the same step join
        while self._wanted:
            wanted, self._wanted = self._wanted, {}
            try:
                with translated_errors():
                    taking = self._call("uq_take", list(wanted))
                    data = await asyncio.wait_for(taking, max(deadline, *self._patient, 0))
            except Exception as error:
                _fail(wanted.values(), error)
                continue
            for future, rows in zip(wanted.values(), data, strict=True):
                if not future.done():
                    future.set_result(rows)
        self._reader = None

    async def _call(self, method: str, *args: Any) -> Any:
        """Call the worker extension and return the fullest of all ranks' answers.

        Only ranks that sample keep anything, and those that do keep the same.
        """
        answers = await self.llm.collective_rpc(method, args=args)
        return max(answers, key=lambda answer: sum(map(len, answer)))

    @contextmanager
    def _watched(self, deadline: float) -> Iterator[None]:
        self._waiting += 1
        if self._watchdog is None:
            self._watchdog = asyncio.create_task(self._watch(deadline))
        try:
            yield
        finally:
            self._waiting -= 1

    @contextmanager
    def _patience(self, deadline: float) -> Iterator[None]:
        self._patient.append(deadline)
        try:
            yield
        finally:
            self._patient.remove(deadline)

    async def _watch(self, deadline: float) -> None:
        """Ask for a sign of life while anyone waits. It needs the engine's loop and its worker."""
        while self._waiting and self.failure is None:
            allowed = max(deadline, *self._patient, 0)
            try:
                await asyncio.wait_for(self.llm.is_sleeping(), allowed)
                await asyncio.sleep(min(1.0, deadline / 4))
            except TimeoutError:
                self._fail_all(EngineTimeoutError(f"no sign of life for {allowed} seconds"))
            except Exception as error:
                self._fail_all(EngineDeadError(f"the engine died: {error}"))
        self._watchdog = None

    def _fail_all(self, failure: EngineDeadError) -> None:
        logger.error("%s", failure)
        self.failure = failure
        self.llm.output_processor.propagate_error(failure)
        _fail(self._wanted.values(), failure)


def _nothing(timeout: float | None = None) -> None:
    """Do nothing."""


def _fail(futures: Any, error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


class EnginePool:
    """Engines by their arguments: who asks for the same shares one, the last to leave ends it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may release within acquire
        self._engines: dict[str, tuple[EngineProcess, int]] = {}

    def acquire(self, arguments: Mapping[str, Any]) -> EngineProcess:
        """Return the engine with these arguments, starting it where it does not run."""
        key = self._key(arguments)
        with self._lock:
            engine, users = self._engines.get(key, (None, 0))
            if engine is None or engine.is_dead:
                engine, users = _start(arguments, engine), 0
            self._engines[key] = (engine, users + 1)
            return engine

    def release(self, engine: EngineProcess) -> None:
        """Give an engine back."""
        with self._lock:
            for key, (held, users) in list(self._engines.items()):
                if held is engine and users > 1:
                    self._engines[key] = (held, users - 1)
                    return
                if held is engine:
                    del self._engines[key]
        engine.shutdown()

    @staticmethod
    def _key(arguments: Mapping[str, Any]) -> str:
        return json.dumps(arguments, sort_keys=True, default=repr)


def _start(arguments: Mapping[str, Any], dead: EngineProcess | None) -> EngineProcess:
    loop = dead.loop if dead else LoopThread()

    async def start() -> EngineProcess:
        llm, why_no_probe = start_async_llm(arguments)
        process = EngineProcess(llm, loop, why_no_probe)
        await process.sees_raw()
        return process

    try:
        started = loop.run(start())
    except BaseException:
        if dead is None:
            loop.stop()
        raise
    if dead:
        dead.hand_on_loop()
    return started


def adopt(llm: Any) -> EngineProcess:
    """Wrap an engine that the user has started, on the loop it already lives on, if any."""
    if not hasattr(llm, "output_handler") or not hasattr(llm, "collective_rpc"):
        raise ConfigurationError(
            f"engine is a {type(llm).__name__}; it must be a vllm.v1.engine.async_llm.AsyncLLM"
        )
    handler = llm.output_handler
    loop = LoopThread(handler.get_loop() if handler else None)
    return EngineProcess(llm, loop, why_ready_engine_is_inexact(llm.vllm_config))


POOL = EnginePool()
