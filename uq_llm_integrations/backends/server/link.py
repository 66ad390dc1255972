"""What a backend and its copies share: event loop, connections, what is known of the servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping

from pydantic import SecretStr

from uq_llm_integrations.backends.base import Shared
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.server.addresses import request_headers
from uq_llm_integrations.backends.server.contact import Facts
from uq_llm_integrations.backends.server.encoding import Encoding, PluginEncoding
from uq_llm_integrations.backends.server.fleet import Fleet, Limits
from uq_llm_integrations.backends.server.plain_encoding import PlainEncoding
from uq_llm_integrations.backends.server.routing import Servers
from uq_llm_integrations.backends.server.token_routes import CompletionRoutes, TokenizeRoutes
from uq_llm_integrations.backends.server.wire import Wire

_EXIT_SECONDS = 2.0

_keepers: set[asyncio.Task[None]] = set()
"""Those that close connections where their loop ends; a loop itself does not keep its tasks."""


class Link(Shared):
    """The way to the servers, for all copies of a backend."""

    def __init__(
        self,
        urls: tuple[str, ...],
        model: str | None,
        routes: str,
        key: SecretStr | None,
        headers: Mapping[str, SecretStr],
        limits: Limits,
    ) -> None:
        super().__init__(urls, model, routes, key, headers, limits)
        self._model, self._routes, self._limits = model, routes, limits
        self._api_key, self._headers = key, headers
        self.servers = Servers(urls)
        self._loop: LoopThread | None = None
        self._fleet: Fleet | None = None
        self._encoding: Encoding | None = None
        self._guard = threading.Lock()
        self.is_closed = False

    @property
    def facts(self) -> Facts | None:
        """What the servers serve, None before the first contact."""
        return self._fleet.facts if self._fleet else None

    @property
    def loop(self) -> LoopThread:
        """The event loop on which all HTTP happens."""
        with self._guard:
            if self._loop is None:
                self._loop = LoopThread()
            return self._loop

    def fleet(self) -> Fleet:
        """Return the servers; on the loop."""
        if self._fleet is None:
            wire = Wire(request_headers(self._api_key, self._headers), self._limits.connect_timeout)
            self._fleet = Fleet(self.servers, wire, self._limits, self._model, routes=self._routes)
            keeper = asyncio.ensure_future(_closed_at_end(self._fleet))
            _keepers.add(keeper)
            keeper.add_done_callback(_keepers.discard)
        return self._fleet

    async def encoding(self) -> Encoding:
        """Return what encodes and decodes; on the loop."""
        fleet = self.fleet()
        facts = await fleet.met()
        if self._encoding is None:
            self._encoding = self._new_encoding(fleet, facts)
        return self._encoding

    def _new_encoding(self, fleet: Fleet, facts: Facts) -> Encoding:
        if self._routes == "completions":
            return PlainEncoding(CompletionRoutes(fleet, facts), is_safe=facts.has_plugin)
        if facts.has_plugin:
            return PluginEncoding(fleet, facts)
        return PlainEncoding(TokenizeRoutes(fleet, facts), is_safe=False)

    def anew(self) -> Link:
        """Return another one, to the same servers."""
        return self._make_anew()

    def close(self) -> None:
        """End the loop, and with it all connections."""
        with self._guard:
            self.is_closed = True
            loop, self._loop, self._fleet = self._loop, None, None
        if loop is not None:
            loop.stop(_EXIT_SECONDS)


async def _closed_at_end(fleet: Fleet) -> None:
    """Close the connections where the loop ends, which cancels this."""
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await fleet.close()
