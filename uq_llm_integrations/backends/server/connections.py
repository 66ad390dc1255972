"""Connections that are kept open between requests.

httpx's own pool looks at all of its connections for each request that begins and ends, and gives
the same idle one to all requests that begin together, of which one gets it: with many callers that
takes most of a call's time. Here each connection is a pool of one, and a free one is at hand.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cached_property

import httpx

_IDLE_SECONDS = 5.0
"""After which a connection that nobody used is closed; vLLM's server closes it then, too."""

Origin = tuple[str, str, int | None]


class Connections(httpx.AsyncBaseTransport):
    """Those to all servers. Used on one event loop."""

    def __init__(self) -> None:
        self._free: dict[Origin, deque[_Kept]] = {}
        self._all: set[httpx.AsyncHTTPTransport] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request by a free connection, or a new one.

        It is free again once its response was read to the end. What was cancelled or failed may
        have left a pool that takes itself for full, in which the next request would wait for ever.
        """
        origin = request.url.scheme, request.url.host, request.url.port
        await self._close_idle(self._free.get(origin, deque()))
        connection = self._taken(origin)
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await self._drop(connection)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream, self, origin, connection)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        self._free.clear()
        while self._all:
            await self._all.pop().aclose()

    def _taken(self, origin: Origin) -> httpx.AsyncHTTPTransport:
        if free := self._free.get(origin):
            return free.pop().connection
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        connection = httpx.AsyncHTTPTransport(verify=self._context, limits=one)
        self._all.add(connection)
        return connection

    def _give(self, origin: Origin, connection: httpx.AsyncHTTPTransport) -> None:
        if connection in self._all:
            kept = _Kept(connection, time.monotonic())
            self._free.setdefault(origin, deque()).append(kept)

    async def _drop(self, connection: httpx.AsyncHTTPTransport) -> None:
        """Close a connection that was left before its response had ended."""
        self._all.discard(connection)
        await connection.aclose()

    async def _close_idle(self, free: deque[_Kept]) -> None:
        """Close those at the front, which wait the longest."""
        while free and time.monotonic() - free[0].since > _IDLE_SECONDS:
            await self._drop(free.popleft().connection)

    @cached_property
    def _context(self) -> ssl.SSLContext:
        """One for all: to read the certificates takes longer than a request."""
        return httpx.create_ssl_context()


@dataclass(frozen=True)
class _Kept:
    connection: httpx.AsyncHTTPTransport
    since: float


class _Body(httpx.AsyncByteStream):
    """The body of a response, which gives its connection back once it is closed."""

    def __init__(
        self,
        body: httpx.AsyncByteStream,
        connections: Connections,
        origin: Origin,
        connection: httpx.AsyncHTTPTransport,
    ) -> None:
        self._body, self._connections, self._origin = body, connections, origin
        self._connection: httpx.AsyncHTTPTransport | None = connection
        self._parts = aiter(body)
        self._is_read = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except StopAsyncIteration:
            self._is_read = True
            raise

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        is_whole = False
        try:
            await self._body.aclose()
            is_whole = self._is_read
        finally:
            if connection is not None and is_whole:
                self._connections._give(self._origin, connection)
            elif connection is not None:
                await self._connections._drop(connection)
