"""Taking turns: many work by day, others by night, and never both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from enum import Enum
from typing import Any

LATECOMERS = 32
"""How many more are let in by night once someone waits for the day."""

Ticket = asyncio.Future[None]


class Side:
    """Those who work at one time of day, and those who wait for it."""

    def __init__(self) -> None:
        self.inside: set[Ticket] = set()
        self.waiting: list[Ticket] = []

    def admit(self, count: int | None = None) -> int:
        """Let in the first who wait, all where no count is given, and return how many they are."""
        count = len(self.waiting) if count is None else count
        admitted = [ticket for ticket in self.waiting[:count] if not ticket.cancelled()]
        self.waiting = self.waiting[count:]
        for ticket in admitted:
            self.inside.add(ticket)
            ticket.set_result(None)
        return len(admitted)

    def refuse(self, error: Exception) -> None:
        """Raise an error at all who wait."""
        refused, self.waiting = self.waiting, []
        for ticket in refused:
            if not ticket.cancelled():
                ticket.set_exception(error)

    def forget(self, ticket: Ticket) -> None:
        """Let one leave, who may still have waited."""
        self.inside.discard(ticket)
        with suppress(ValueError):
            self.waiting.remove(ticket)


class Time(Enum):
    """What time it is; between day and night nobody is inside."""

    DAY = "day"
    NIGHT = "night"
    BETWEEN = "between"


class Turns:
    """Lets many work by day or others by night, all on one event loop.

    Once someone wants the night, newcomers of the day wait, and `at_dusk` is done when all who work
    by day have finished; `at_dawn` is done when nobody is left who works by night. After each of
    them all are let in who waited for it. While someone waits for the day, only so many
    `latecomers` are let in by night.

    Where `at_dusk` fails, those who wait for the night get the error; where `at_dawn` does, those
    who wait for the day, and the next one who comes has it tried again.
    """

    def __init__(
        self,
        at_dusk: Callable[[], Awaitable[None]],
        at_dawn: Callable[[], Awaitable[None]],
        latecomers: int = LATECOMERS,
    ) -> None:
        self._at_dusk, self._at_dawn, self._latecomers = at_dusk, at_dawn, latecomers
        self._day, self._night = Side(), Side()
        self._time, self._late = Time.DAY, 0
        self._is_stuck = False
        self._change: asyncio.Task[None] | None = None

    @property
    def is_changing(self) -> bool:
        """Whether night is falling or day is breaking."""
        return self._time is Time.BETWEEN

    def by_day(self) -> AbstractAsyncContextManager[None]:
        """Work by day, beside others."""
        return self._inside(self._day)

    def by_night(self) -> AbstractAsyncContextManager[None]:
        """Work by night, beside others."""
        return self._inside(self._night)

    async def settled(self) -> None:
        """Wait for a change that is under way, whatever comes of it."""
        if self._change is not None:
            await asyncio.wait({self._change})

    @asynccontextmanager
    async def _inside(self, side: Side) -> AsyncIterator[None]:
        ticket: Ticket = asyncio.get_running_loop().create_future()
        side.waiting.append(ticket)
        self._arrange()
        try:
            await ticket
            yield
        finally:
            side.forget(ticket)
            self._arrange()

    def _arrange(self) -> None:
        """Let in who may come now, and change the time where it is due."""
        if self._time is Time.DAY:
            if not self._night.waiting:
                self._day.admit()
            elif not self._day.inside:
                self._start(self._night_falls())
        elif self._time is Time.NIGHT:
            if not self._day.waiting:
                self._night.admit()
            elif self._late < self._latecomers:
                self._late += self._night.admit(self._latecomers - self._late)
            if not self._night.inside and (self._day.waiting or not self._is_stuck):
                self._start(self._day_breaks())

    def _start(self, change: Coroutine[Any, Any, None]) -> None:
        self._time = Time.BETWEEN
        self._change = asyncio.create_task(change)

    async def _night_falls(self) -> None:
        try:
            await self._at_dusk()
        except Exception as error:
            self._night.refuse(error)
        self._time, self._late = Time.NIGHT, 0
        self._night.admit()
        self._arrange()

    async def _day_breaks(self) -> None:
        try:
            await self._at_dawn()
        except Exception as error:
            self._time, self._is_stuck = Time.NIGHT, True
            self._day.refuse(error)
            self._night.admit()
            return
        self._time, self._is_stuck = Time.DAY, False
        self._day.admit()
        self._arrange()
