"""A running engine: called by many at once, monitored while they wait, and shut down in the end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.backends.vllm import client_compat
from uq_llm_integrations.backends.vllm.life_check import EngineFailure, LifeCheck
from uq_llm_integrations.backends.vllm.shared_memory import Remains
from uq_llm_integrations.backends.vllm.worker.protocol import ATTACH, RECORDED, TAKE
from uq_llm_integrations.errors import (
    EngineBusyError,
    EngineDeadError,
    EngineError,
    EngineTimeoutError,
    InvalidRequestError,
    UncertaintyError,
    reason,
)

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

T = TypeVar("T")

logger = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 20.0

ATTACH_SECONDS = 120.0
"""How long an engine that starts may give no sign of life."""

_ids = itertools.count()  # of all engines here, since two of these objects may be on one of them


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn vLLM's errors into ours."""
    foreign = client_compat.vllm_errors()
    try:
        yield
    except (EngineDeadError, EngineTimeoutError) as error:
        # One object is raised for all who wait; each gets one of its own, for what it adds to it.
        raise type(error)(*error.args) from error
    except UncertaintyError:
        raise
    except foreign.dead as error:
        raise EngineDeadError("the engine's process died") from error
    except foreign.busy as error:
        raise EngineBusyError(reason(error)) from error
    except (foreign.client, ValueError, TypeError) as error:
        raise InvalidRequestError(f"vLLM refuses the request: {reason(error)}") from error
    except TimeoutError as error:
        raise EngineTimeoutError("the engine did not answer in time") from error
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, EngineDeadError | EngineTimeoutError):
            raise type(cause)(*cause.args) from error
        raise EngineError(f"vLLM failed: {reason(error)}") from error


class EngineProcess:
    """One AsyncLLM on the loop it lives on. All methods but `shutdown` run on that loop."""

    def __init__(
        self,
        llm: AsyncLLM,
        loop: LoopThread,
        why_no_probe: str | None,
        *,
        owns_loop: bool = True,
        restarts: int = 0,
        remains: Remains | None = None,
    ) -> None:
        self.llm = llm
        self.loop = loop
        self.owns_loop = owns_loop
        """Whether the loop ends with the engine."""
        self.restarts = restarts
        """How many engines with the same arguments have died before it, one after the other."""
        self.remains = remains or Remains()
        """Its processes and their shared memory, since they may be gone before it is."""
        self.why_no_probe = why_no_probe
        self.failure: EngineFailure | None = None
        self._pid = os.getpid()
        self._life = LifeCheck(llm, self._fail_all)
        self._unread: dict[str, asyncio.Future[bytes]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._forgetting: set[asyncio.Task[Any]] = set()
        self._attaching: asyncio.Task[bool] | None = None
        self.sharing: asyncio.Task[None] | None = None
        """The check whether the model can be inspected, once someone needs it."""
        self.why_not_shared: str | None = None
        """What the check has found against it."""

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process started the engine; a child forked from that one cannot use it."""
        return self._pid == os.getpid()

    @property
    def is_dead(self) -> bool:
        """Whether no call can succeed any more."""
        return self.failure is not None or client_compat.is_dead(self.llm)

    @property
    def can_sleep(self) -> bool:
        """Whether the engine was started with vLLM's sleep mode."""
        return bool(self.llm.model_config.enable_sleep_mode)

    def expect(self, deadline: float) -> None:
        """Note that someone uses the engine who waits so many seconds for a sign of life."""
        self._life.longest = max(self._life.longest, deadline)

    def new_id(self) -> str:
        """Return an id that no other request from this process has."""
        return f"uq-{self._pid}-{next(_ids)}"

    async def outputs(
        self, prompt_ids: list[int], params: SamplingParams, request_id: str, deadline: float
    ) -> AsyncGenerator[RequestOutput, None]:
        """Yield the engine's outputs; leaving early makes the engine stop working on the request.

        Raises EngineDeadError within seconds of the engine's death and EngineTimeoutError where it
        gives no sign of life for `deadline` seconds.
        """
        with translated_errors(), self._life.waiting(deadline) as waiting:
            stream = client_compat.generate(self.llm, prompt_ids, params, request_id)
            async with closed_at_end(stream) as found:
                while True:
                    with waiting.check(self.failure):
                        try:
                            output = await anext(found)
                        except StopAsyncIteration:
                            return
                    self._life.note_progress()
                    yield output

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
        with translated_errors(), self._life.call(0, self.failure, busy=ATTACH_SECONDS):
            return all(await client_compat.call_workers(self.llm, ATTACH, ()))

    async def take(self, name: str, deadline: float, read: Callable[[bytes], T]) -> T:
        """Return what the probe kept under a name; those read in one step share one call."""
        future = asyncio.get_running_loop().create_future()
        self._unread[name] = future
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        with translated_errors():
            with self._life.call(deadline, self.failure):
                data = await future
            return read(data)

    async def call_worker(
        self, method: str, *args: object, deadline: float, patience: float = 1
    ) -> Any:
        """Call the worker extension and return the first worker's result.

        Raises what `outputs` raises where the engine dies or gives no sign of life. A call that may
        take long has `patience`: until it returns, the deadline is so many times as far.
        """
        busy = deadline * patience if patience > 1 else 0
        with translated_errors(), self._life.call(deadline, self.failure, busy):
            return (await client_compat.call_workers(self.llm, method, args))[0]

    def forget_rows(self, *names: str) -> None:
        """Let the probe drop what it kept of a request that was cancelled."""
        if self.is_dead:
            return
        with suppress(RuntimeError):  # the loop is closing, and the engine with it
            forgetting = asyncio.create_task(self._call(TAKE, list(names)))
            self._forgetting.add(forgetting)
            forgetting.add_done_callback(self._forgotten)

    def _forgotten(self, forgetting: asyncio.Task[Any]) -> None:
        self._forgetting.discard(forgetting)
        if not forgetting.cancelled():
            forgetting.exception()  # the engine's death is told to those who wait for it

    async def recorded(self) -> list[str]:
        """Return the requests of which the probe still keeps something."""
        names: list[str] = await self._call(RECORDED)
        return names

    def shutdown(self, seconds: float = SHUTDOWN_SECONDS) -> None:
        """End the engine's processes and its loop, unless that was handed on.

        Processes that have not ended after so many seconds are killed.
        """
        if self.loop.is_here:  # the garbage collector may call from anywhere
            threading.Thread(target=self.shutdown, daemon=True).start()
            return
        self.failure = self.failure or EngineDeadError("the engine was shut down")
        begun = time.monotonic()
        if self.owns_loop:
            # First, so that nothing takes the processes' end for a failure.
            self.loop.stop(seconds / 2)
        left = seconds - (time.monotonic() - begun)
        client_compat.shut_down(self.llm, left, self.remains)

    async def _read(self) -> None:
        await asyncio.sleep(0)  # let others that finished in the same step join
        while self._unread:
            unread, self._unread = self._unread, {}
            try:
                with translated_errors():
                    data = await self._call(TAKE, list(unread))
            except Exception as error:
                _fail(unread.values(), error)
                continue
            for future, rows in zip(unread.values(), data, strict=True):
                if not future.done():
                    future.set_result(rows)
        self._reader = None

    async def _call(self, method: str, *args: object) -> Any:
        """Call the worker extension and return the fullest of all ranks' results.

        Only ranks that sample keep anything, and those that do keep the same.
        """
        results = await client_compat.call_workers(self.llm, method, args)
        return max(results, key=lambda result: sum(map(len, result)))

    def _fail_all(self, failure: EngineFailure) -> None:
        logger.error("%s", failure)
        self.failure = failure
        for waiting in (self._reader, *self._forgetting):  # what they wait for does not come
            if waiting:
                waiting.cancel()
        client_compat.fail_requests(self.llm, failure)


def _fail(futures: Iterable[asyncio.Future[bytes]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
