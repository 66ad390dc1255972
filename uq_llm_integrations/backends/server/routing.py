"""Which of many servers gets a request: prefix affinity, bounded load, and who is set aside."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b

from uq_llm_integrations.backends.server.contact import Facts
from uq_llm_integrations.errors import ConfigurationError

LOAD = 1.25
"""A server with so many times the mean of requests in flight is passed over."""

BLOCK = 16
"""Tokens of a prompt that decide where it goes, unless the servers have another block size."""

_LEAST_WAIT = 0.01
"""Seconds that `Retry-After: 0` stands for."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds for which a server that failed once, or often in a row, is set aside."""


class Server:
    """One server, and what is known of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.in_flight = 0
        self.is_draining = False
        self.facts: Facts | None = None
        """What it said at the first contact, None before that."""
        self.failures = 0
        self.away_until = 0.0
        """Until when it is only tried where there is no other, since it failed."""
        self.busy_until = 0.0
        """Until when it is not tried, since it said so (`Retry-After`)."""
        self._hash = blake2b(url.encode(), digest_size=8)

    def weight(self, key: bytes) -> bytes:
        """Return how much a key belongs to this server: the greatest of all has it."""
        found = self._hash.copy()
        found.update(key)
        return found.digest()


class Servers:
    """All servers of one backend. Keys go to the same server, as long as all goes well.

    Rendezvous hashing: where a server is added or taken away, only its own share of the keys moves.
    """

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.all = [Server(url) for url in urls]
        self._clock = clock

    def pick(self, key: bytes, tried: Collection[Server] = ()) -> Server | None:
        """Return the server for a key, None where none is left to be tried."""
        now = self._clock()
        left = [one for one in self.all if not one.is_draining and one not in tried]
        willing = [one for one in left if one.busy_until <= now]
        ready = [one for one in willing if one.away_until <= now] or willing
        if len(ready) < 2:
            return ready[0] if ready else None
        most = math.ceil(LOAD * (1 + sum(one.in_flight for one in ready)) / len(ready))
        ordered = sorted(ready, key=lambda one: one.weight(key), reverse=True)
        return next(one for one in ordered if one.in_flight < most)

    def wait_seconds(self) -> float | None:
        """Return in how many seconds one that said when to come back may be tried again."""
        now = self._clock()
        waits = [one.busy_until - now for one in self.all if not one.is_draining]
        return min((wait for wait in waits if wait > 0), default=None)

    def note_failure(self, server: Server, retry_after: float | None) -> None:
        """Set a server aside: for as long as it said, else the longer the more often it failed."""
        now = self._clock()
        if retry_after is not None:
            server.busy_until = now + max(retry_after, _LEAST_WAIT)
            return
        if server.away_until > now:  # all that were under way fail with it, and count once
            return
        pause = _FIRST_PAUSE * 2.0 ** min(server.failures, 10)
        server.failures += 1
        server.away_until = now + min(pause, _LONGEST_PAUSE)

    def note_success(self, server: Server) -> None:
        """Take a server as sound again."""
        server.failures, server.away_until = 0, 0.0

    def named(self, url: str) -> Server:
        """Return the server with an address, or raise ConfigurationError."""
        for one in self.all:
            if one.url == url:
                return one
        known = ", ".join(one.url for one in self.all)
        raise ConfigurationError(f"there is no server {url!r}; allowed are {known}")


def prefix_key(prompt_ids: Sequence[int], block: int = BLOCK) -> bytes:
    """Return the key of a prompt: its first block of tokens, which servers keep in their cache."""
    first = prompt_ids[:block]
    return struct.pack(f"<{len(first)}q", *first)
