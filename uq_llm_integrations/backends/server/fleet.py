"""Requests to many servers: who gets one, who else may, and how long all of that may take."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from uq_llm_integrations.backends.server.contact import VERSIONS, Contact, Facts, check_alike
from uq_llm_integrations.backends.server.http_errors import ElsewhereError
from uq_llm_integrations.backends.server.request_queue import RequestQueue
from uq_llm_integrations.backends.server.routing import Server, Servers
from uq_llm_integrations.backends.server.wire import Answer, Json, Wire
from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.errors import (
    EngineBusyError,
    EngineDeadError,
    EngineTimeoutError,
    InvalidRequestError,
    reason,
)

T = TypeVar("T")

logger = logging.getLogger(__name__)

_LEAST_WAIT, _LONGEST_WAIT = 0.05, 10.0
"""Seconds that a call waits at least, the first time and later on, for servers that said when to
come back; twice as long each time."""

_LAST_TURNS = 5
"""Of the loop, in which the generators within httpx end that were dropped."""


@dataclass(frozen=True)
class Limits:
    """What a call may take, in seconds, and how many may be under way."""

    connect_timeout: float
    first_token_timeout: float
    deadline: float
    max_in_flight: int


class Fleet:
    """All servers of a backend, on one event loop."""

    def __init__(
        self, servers: Servers, wire: Wire, limits: Limits, model: str | None, *, routes: str
    ) -> None:
        self.servers, self._wire, self.limits = servers, wire, limits
        self._model, self._only_completions = model, routes == "completions"
        self._queue = RequestQueue(limits.max_in_flight)
        self._meeting = asyncio.Lock()
        self._streams: set[_Opened] = set()
        self.facts: Facts | None = None

    async def met(self) -> Facts:
        """Return what all servers serve, after the first contact with those that can be reached."""
        if self.facts is None:
            async with self._meeting:
                self.facts = self.facts or await self._meet_all()
        return self.facts

    async def _meet_all(self) -> Facts:
        meetings = (self._meet(one) for one in self.servers.all)
        outcomes = await asyncio.gather(*meetings, return_exceptions=True)
        for one in outcomes:
            if isinstance(one, BaseException) and not isinstance(one, ElsewhereError):
                raise one
        found = [one.facts for one in self.servers.all if one.facts is not None]
        if not found:
            raise next(one.error for one in outcomes if isinstance(one, ElsewhereError))
        if found[0].why_inexact:
            logger.warning("%s: %s", self.servers.all[0].url, found[0].why_inexact)
        return found[0]

    async def _meet(self, server: Server) -> None:
        """Contact a server, and compare it with those that are known."""

        async def ask(path: str, body: Mapping[str, object] | None = None) -> Answer:
            content = None if body is None else json.dumps(body).encode()
            answer = await self._wire.ask(server.url, path, content)
            if answer.status in (429, 502, 503, 504):
                self._wire.refuse(server.url, answer)
            return answer

        contact = Contact(server.url, ask, self._wire.refuse, self._model)
        try:
            async with asyncio.timeout(self.limits.first_token_timeout):
                facts = await contact.facts(only_completions=self._only_completions)
        except ElsewhereError as failure:
            self.servers.note_failure(server, failure.retry_after)
            raise
        except TimeoutError:
            self.servers.note_failure(server, None)
            raise ElsewhereError(EngineTimeoutError(f"{server.url} does not answer")) from None
        self._check(server, facts)
        server.facts = facts

    def _check(self, server: Server, facts: Facts) -> None:
        """Compare a server with all others, and with what was served at the first contact."""
        others = [(one.url, one.facts) for one in self.servers.all if one.facts]
        check_alike([*others, (server.url, facts)])
        if self.facts is not None:  # a server may be renewed, and still serve the same
            check_alike([("before it", self.facts), (server.url, facts)], but=VERSIONS)

    async def answer(
        self, path: str, body: Mapping[str, object], key: bytes = b"", *, waits: bool = True
    ) -> Json:
        """Return one server's whole answer; where one cannot answer, another one is asked.

        `waits` says whether it waits for its turn: not what a call needs that has one already.
        """
        content, ends = _json(body), _now() + self.limits.deadline

        async def whole(server: Server) -> Json:
            return await self._wire.answer(server.url, path, content)

        if waits:
            await self._queue.take(ends)
        try:
            async with _in_time_at(ends, "no answer within the deadline"):
                return await self._somewhere(key, ends, whole)
        finally:
            if waits:
                self._queue.give_back()

    async def events(
        self, path: str, body: Mapping[str, object], key: bytes
    ) -> AsyncGenerator[Json, None]:
        """Yield the events of one server's stream; no other is asked once there was a token."""
        content, ends = _json(body), _now() + self.limits.deadline

        async def opened(server: Server) -> _Opened:
            stream = _Opened(server, self._wire.events(server.url, path, content))
            await stream.open(min(_now() + self.limits.first_token_timeout, ends))
            return stream

        stream: _Opened | None = None
        await self._queue.take(ends)
        try:
            async with _in_time_at(ends, "no answer within the deadline"):
                stream = await self._somewhere(key, ends, opened)
            self._streams.add(stream)
            while (event := await stream.next(ends)) is not None:
                yield event
        finally:
            self._queue.give_back()
            if stream is not None:
                self._streams.discard(stream)
                await stream.close()

    async def close(self) -> None:
        """End all streams and connections, before the loop ends and would end them in any order."""
        while self._streams:
            await self._streams.pop().close()
        await self._wire.client.aclose()
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)

    async def _somewhere(
        self, key: bytes, ends: float, attempt: Callable[[Server], Awaitable[T]]
    ) -> T:
        tried: dict[Server, ElsewhereError] = {}
        rounds = 0
        while True:
            server = self.servers.pick(key, tried)
            if server is None:
                rounds += 1
                await self._wait(tried, ends, rounds)
                tried.clear()
                continue
            try:
                return await self._attempt(server, attempt)
            except ElsewhereError as failure:
                tried[server] = failure

    async def _attempt(self, server: Server, attempt: Callable[[Server], Awaitable[T]]) -> T:
        server.in_flight += 1
        try:
            if server.facts is None:
                await self._meet(server)
            found = await attempt(server)
        except ElsewhereError as failure:
            self.servers.note_failure(server, failure.retry_after)
            if not isinstance(failure.error, EngineBusyError):
                server.facts = None  # it may come back as another one
            raise
        finally:
            server.in_flight -= 1
        self.servers.note_success(server)
        return found

    async def _wait(self, tried: Mapping[Server, ElsewhereError], ends: float, rounds: int) -> None:
        """Wait for the first server that said when to come back, or raise why there is none."""
        errors, due = [one.error for one in tried.values()], self.servers.wait_seconds()
        if due is None and all(one.retry_after is None for one in tried.values()):
            nobody = EngineDeadError("all servers are draining, so that none takes a request")
            raise next(iter(errors), nobody)
        wait = max(due or 0.0, min(_LEAST_WAIT * 2.0 ** min(rounds, 10), _LONGEST_WAIT))
        if _now() + wait >= ends:
            busy = EngineBusyError(f"all servers are busy for {wait:.0f} s, as they said")
            raise next(iter(errors), busy)
        await asyncio.sleep(wait)


class _Opened:
    """A stream of one server whose first token has come."""

    def __init__(self, server: Server, events: AsyncGenerator[Json, None]) -> None:
        self._server, self._events = server, closed_at_end(events)
        self._first: Json | None = None
        self._is_open = True
        server.in_flight += 1

    async def open(self, ends: float) -> None:
        try:
            async with _in_time_at(ends, "no first token within first_token_timeout"):
                while self._first is None:
                    event = await anext(self._events, None)
                    if event is None:
                        raise ElsewhereError(EngineDeadError("a stream ended before it began"))
                    self._first = event if _has_tokens(event) else None
        except BaseException:
            await self.close()
            raise

    async def next(self, ends: float) -> Json | None:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            async with _in_time_at(ends, "the stream did not end within the deadline"):
                return await anext(self._events, None)
        except ElsewhereError as failure:
            raise EngineDeadError(f"the stream broke: {failure.error}") from None

    async def close(self) -> None:
        is_open, self._is_open = self._is_open, False
        if is_open:
            self._server.in_flight -= 1
            await self._events.aclose()


def _has_tokens(event: Json) -> bool:
    """Return whether an event has tokens, or is such that whoever reads it will not take it."""
    choices = event.get("choices")
    if not isinstance(choices, list):
        return True
    names = ("token_ids", "text", "finish_reason")
    return any(not isinstance(one, dict) or any(map(one.get, names)) for one in choices)


@asynccontextmanager
async def _in_time_at(ends: float, why: str) -> AsyncGenerator[None, None]:
    """Raise EngineTimeoutError where it takes longer; entered and left by one task."""
    try:
        async with asyncio.timeout_at(ends):
            yield
    except TimeoutError:
        raise EngineTimeoutError(why) from None


def _now() -> float:
    return asyncio.get_running_loop().time()


def _json(body: Mapping[str, object]) -> bytes:
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:  # bytes, NaN, no end
        raise InvalidRequestError(f"the request cannot be sent: {reason(error)}") from error
