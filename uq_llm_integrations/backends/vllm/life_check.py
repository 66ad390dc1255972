"""Whether a running engine is alive: monitored while anyone waits for it.

A call that has waited for its deadline without a sign of life is aborted alone. The engine counts
as dead once its processes have ended, or once it has answered nobody for as long as the most
patient of those who use it would wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uq_llm_integrations.backends.interruption import Interruption
from uq_llm_integrations.backends.vllm import client_compat
from uq_llm_integrations.errors import EngineDeadError, EngineTimeoutError, reason

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

EngineFailure = EngineDeadError | EngineTimeoutError
"""What an engine cannot recover from: its processes are gone, or give no sign of life."""

LEAST_SILENCE = 2.0
"""Seconds without a sign of life before which no engine counts as dead: a step may take as long."""

_LONGEST_TICK, _SHORTEST_TICK = 1.0, 0.005


class Waiting:
    """Someone who waits for the engine."""

    def __init__(self, deadline: float, busy: float) -> None:
        self.deadline, self.busy = deadline, busy
        self.silence = 0.0
        """Seconds for which the engine has given no sign of life."""
        self.interruption = Interruption()

    @contextmanager
    def check(self, failure: EngineFailure | None) -> Iterator[None]:
        """Let what is awaited within end with the engine, or when it is late."""
        if failure:
            raise failure
        with self.interruption:
            yield


class LifeCheck:
    """Requests signs of life of an engine, on its loop, while anyone waits for it."""

    def __init__(self, llm: AsyncLLM, fail_all: Callable[[EngineFailure], None]) -> None:
        self._llm, self._fail_all = llm, fail_all
        self._all: set[Waiting] = set()
        self._task: asyncio.Task[None] | None = None
        self._silence, self._has_progressed = 0.0, False
        self.longest = LEAST_SILENCE
        """The longest deadline of all who have used the engine."""

    @contextmanager
    def waiting(self, deadline: float, busy: float = 0) -> Iterator[Waiting]:
        """Wait for the engine; for `busy` seconds it may give nobody a sign of life meanwhile."""
        one = Waiting(deadline, busy)
        self.longest = max(self.longest, deadline)
        self._all.add(one)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            yield one
        finally:
            self._all.discard(one)

    @contextmanager
    def call(
        self, deadline: float, failure: EngineFailure | None, busy: float = 0
    ) -> Iterator[None]:
        """Wait for one answer of the engine, which is what is awaited within."""
        with self.waiting(deadline, busy) as one, one.check(failure):
            yield

    def note_progress(self) -> None:
        """Note that some request has made progress, which is a sign of life."""
        self._has_progressed = True

    async def _run(self) -> None:
        """Also while nobody waits any more but a sign of life is due: others will come."""
        ping: asyncio.Task[None] | None = None
        failure = None
        try:
            while failure is None and (self._all or ping):
                ping = ping or asyncio.create_task(client_compat.ping(self._llm))
                tick = self._tick()
                await asyncio.wait({ping}, timeout=tick)
                failure = self._found(ping, tick)
                if ping.done():
                    ping = None
                    await asyncio.sleep(0 if failure else tick)
        finally:
            self._task = None
            if ping:
                ping.cancel()
        if failure:
            self._end_all(failure)

    def _tick(self) -> float:
        """Return how long to wait until the next look, so that nobody hears much too late."""
        least = min((one.deadline for one in self._all), default=_LONGEST_TICK)
        return max(min(_LONGEST_TICK, least / 4), _SHORTEST_TICK)

    def _found(self, ping: asyncio.Task[None], tick: float) -> EngineFailure | None:
        """Return the engine's failure, and end those who have waited too long."""
        if ping.done() and not ping.cancelled() and (error := ping.exception()):
            return EngineDeadError(f"the engine died: {reason(error)}")
        if client_compat.is_dead(self._llm):
            return EngineDeadError("the engine died")
        is_silent = not (ping.done() or self._has_progressed)
        self._has_progressed = False
        # Ticks are counted, not seconds: where this loop was held up, the engine is not to blame.
        self._silence = self._silence + tick if is_silent else 0.0
        busy = max((one.busy for one in self._all), default=0)
        for one in list(self._all):
            one.silence = one.silence + tick if is_silent else 0.0
            if one.silence >= max(one.deadline, busy):
                one.interruption.interrupt(_silent(max(one.deadline, busy)))
        allowed = max(self.longest, busy)
        return _silent(allowed) if self._silence >= allowed else None

    def _end_all(self, failure: EngineFailure) -> None:
        self._fail_all(failure)
        for one in list(self._all):
            one.interruption.interrupt(failure)


def _silent(seconds: float) -> EngineTimeoutError:
    return EngineTimeoutError(f"no sign of life for {seconds} seconds")
