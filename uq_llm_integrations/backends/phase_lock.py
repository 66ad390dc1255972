"""A lock with two phases: many generate at once or many inspect at once, and never both."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum

LATECOMERS = 32
"""How many more inspections may start once generation waits."""


class Phase(Enum):
    """What the device's memory holds; while it is switched, nobody works."""

    GENERATION = "generation"
    INSPECTION = "inspection"
    SWITCHING = "switching"


class PhaseLock:
    """Lets many generate at once or many inspect at once, all on one event loop.

    Once an inspection waits, new generation waits too; when the running generation has finished,
    `to_inspection` is awaited and all inspections that wait start together. More may join them: any
    number while no generation waits, then `latecomers` at most. When none runs any more,
    `to_generation` is awaited and all generation that waits starts.

    Where `to_inspection` fails, the inspections that wait raise its error; where `to_generation`
    fails, the generation that waits does, and the next generation tries the switch again.
    """

    def __init__(
        self,
        to_inspection: Callable[[], Awaitable[None]],
        to_generation: Callable[[], Awaitable[None]],
        latecomers: int = LATECOMERS,
    ) -> None:
        self._switches = {Phase.INSPECTION: to_inspection, Phase.GENERATION: to_generation}
        self._waiting: dict[Phase, list[asyncio.Future[None]]]
        self._waiting = {Phase.GENERATION: [], Phase.INSPECTION: []}
        self._active: set[asyncio.Future[None]] = set()
        self._phase = Phase.GENERATION
        self._latecomers, self._late = latecomers, 0
        self._is_stuck = False
        self._switch_task: asyncio.Task[None] | None = None

    @property
    def is_switching(self) -> bool:
        """Whether the switch from one phase to the other is under way."""
        return self._phase is Phase.SWITCHING

    @asynccontextmanager
    async def hold(self, phase: Phase) -> AsyncIterator[None]:
        """Work in a phase, beside others of the same."""
        entry = asyncio.get_running_loop().create_future()
        self._waiting[phase].append(entry)
        self._update()
        try:
            await entry
            yield
        finally:
            self._active.discard(entry)
            if entry in self._waiting[phase]:
                self._waiting[phase].remove(entry)
            self._update()

    async def wait_for_switch(self) -> None:
        """Wait until a switch that is under way has ended, well or badly."""
        if self._switch_task is not None:
            await asyncio.wait({self._switch_task})

    def _update(self) -> None:
        """Admit who may work now, and begin the switch that is due."""
        generation, inspection = self._waiting[Phase.GENERATION], self._waiting[Phase.INSPECTION]
        if self._phase is Phase.GENERATION:
            if not inspection:
                self._admit(Phase.GENERATION)
            elif not self._active:
                self._begin_switch(Phase.INSPECTION)
        elif self._phase is Phase.INSPECTION:
            if not generation:
                self._admit(Phase.INSPECTION)
            else:
                self._late += self._admit(Phase.INSPECTION, self._latecomers - self._late)
            if not self._active and (generation or not self._is_stuck):
                self._begin_switch(Phase.GENERATION)

    def _admit(self, phase: Phase, limit: int | None = None) -> int:
        """Let the first that wait work, all of them without a limit; return how many those are."""
        entries = self._waiting[phase][:limit]
        del self._waiting[phase][:limit]
        admitted = [entry for entry in entries if not entry.cancelled()]
        for entry in admitted:
            self._active.add(entry)
            entry.set_result(None)
        return len(admitted)

    def _begin_switch(self, phase: Phase) -> None:
        self._phase = Phase.SWITCHING
        self._switch_task = asyncio.create_task(self._switch(phase))

    async def _switch(self, phase: Phase) -> None:
        failed = False
        try:
            await self._switches[phase]()
        except Exception as error:
            failed = True
            entries, self._waiting[phase] = self._waiting[phase], []
            for entry in entries:
                if not entry.cancelled():
                    entry.set_exception(error)
        # After a failed switch the generator may sleep or not: only the way back wakes it for sure.
        self._phase = Phase.INSPECTION if failed else phase
        self._is_stuck = failed and phase is Phase.GENERATION
        self._late = 0
        self._admit(self._phase)
        self._update()
