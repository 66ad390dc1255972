"""The bounded queue in front of the servers."""

from __future__ import annotations

import asyncio
import time

from uq_llm_integrations.errors import EngineBusyError
from uq_llm_integrations.telemetry.instruments import QUEUE, record

_WAITING = 16
"""How many times `max_in_flight` may wait for their turn."""


class RequestQueue:
    """A place for so many calls; the others wait in their order."""

    def __init__(self, most: int) -> None:
        self._most, self._waiting = most, 0
        self._free = asyncio.Semaphore(most)

    async def take(self, ends: float) -> None:
        """Take a place; EngineBusyError where there is none in time."""
        if self._waiting >= _WAITING * self._most:
            raise EngineBusyError(
                f"{self._most} requests are in flight and {self._waiting} wait; "
                "allowed by max_in_flight are no more"
            )
        self._waiting += 1
        started = time.perf_counter()
        try:
            async with asyncio.timeout_at(ends):
                await self._free.acquire()
        except TimeoutError:
            raise EngineBusyError(
                f"{self._most} requests, as many as max_in_flight allows, were in flight for all "
                "of the deadline"
            ) from None
        finally:
            self._waiting -= 1
            record(QUEUE, time.perf_counter() - started)

    def give_back(self) -> None:
        """Leave the place to the next."""
        self._free.release()
