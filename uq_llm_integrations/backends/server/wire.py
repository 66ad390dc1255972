"""HTTP with one server: what is sent and what comes back, every failure as an error of ours.

Nothing that a server says is trusted for sizes: bodies and lines have limits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.request import getproxies

from uq_llm_integrations.backends.server.http_errors import (
    ELSEWHERE,
    ElsewhereError,
    retry_after,
    said_in,
    stated_error,
    status_error,
)
from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineDeadError,
    EngineError,
    MissingDependencyError,
    UncertaintyError,
    reason,
)
from uq_llm_integrations.telemetry.headers import request_headers

if TYPE_CHECKING:
    import httpx

Json = dict[str, Any]

MOST_BYTES = 2**29
"""Bytes of a body, or of one event of a stream, beyond which it is not read."""

_ERROR_BYTES = 2**16

_KEPT_CONNECTIONS = 512

_END_SECONDS = 0.5
"""How long the end of a body may take behind the end of its stream."""


@dataclass(frozen=True)
class Answer:
    """What a server answered."""

    status: int
    data: bytes
    retry_after: float | None = None


class Wire:
    """The connections to all servers. Used on one event loop."""

    def __init__(self, headers: Mapping[str, str], connect_timeout: float) -> None:
        try:
            import httpx

            from uq_llm_integrations.backends.server.connections import Connections
        except ImportError as error:
            raise MissingDependencyError("httpx", "server") from error
        self.client = httpx.AsyncClient(
            headers={**headers, "Content-Type": "application/json"},
            timeout=httpx.Timeout(None, connect=connect_timeout),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=_KEPT_CONNECTIONS),
            transport=None if getproxies() else Connections(),  # httpx itself knows proxies
            follow_redirects=False,  # secrets go nowhere else
        )
        self._secrets = [one for one in _secrets(headers) if one]

    async def ask(self, url: str, path: str, content: bytes | None = None) -> Answer:
        """Return a whole answer of any status; ElsewhereError where there is none."""
        async with self._response(url, path, content) as response:
            return await _read(url, response)

    async def answer(self, url: str, path: str, content: bytes | None = None) -> Json:
        """Return the body of a good answer."""
        found = await self.ask(url, path, content)
        if found.status != 200:
            self.refuse(url, found)
        body = parsed(url, found.data)
        if stated := stated_error(url, body):
            self._raise(*stated)
        return body

    async def events(self, url: str, path: str, content: bytes) -> AsyncGenerator[Json, None]:
        """Yield the events of a stream; closing it closes the connection, so the server aborts."""
        async with self._response(url, path, content) as response:
            if response.status_code != 200:
                self.refuse(url, await _read(url, response, _ERROR_BYTES))
            async with closed_at_end(event_data(url, response.aiter_bytes())) as found:
                async for data in found:
                    body = parsed(url, data)
                    if stated := stated_error(url, body):
                        self._raise(*stated)
                    yield body

    def _response(self, url: str, path: str, content: bytes | None) -> _Exchange:
        return _Exchange(self.client, url, path, content)

    def refuse(self, url: str, answer: Answer) -> NoReturn:
        """Raise the error of an answer that is none."""
        error = status_error(url, answer.status, self._masked(said_in(answer.data)))
        self._raise(answer.status, error, answer.retry_after)

    def _raise(self, status: int, error: UncertaintyError, after: float | None = None) -> NoReturn:
        error.args = tuple(self._masked(one) for one in error.args)
        if status in ELSEWHERE:
            raise ElsewhereError(error, after if status in (429, 503) else None)
        raise error

    def _masked(self, text: str) -> str:
        """Return a text of a server's without the secrets that were sent to it."""
        for secret in self._secrets:
            text = text.replace(secret, "**********")
        return text


class _Exchange(AbstractAsyncContextManager["httpx.Response"]):
    """One request, and its response until this is left; httpx's errors become ours.

    No generator: a loop closes at its end all generators that it knows of at once, the one that
    this is within, too.
    """

    def __init__(
        self, client: httpx.AsyncClient, url: str, path: str, content: bytes | None
    ) -> None:
        self._client, self._url, self._path, self._content = client, url, path, content
        self._response: httpx.Response

    async def __aenter__(self) -> httpx.Response:
        method = "GET" if self._content is None else "POST"
        with _translated(self._url):
            url = self._url + self._path
            request = self._client.build_request(
                method, url, content=self._content, headers=request_headers()
            )
            self._response = await self._client.send(request, stream=True)
        return self._response

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _translated(self._url):
            await self._response.aclose()
            if isinstance(error, Exception):
                raise error


def _secrets(headers: Mapping[str, str]) -> list[str]:
    values = list(headers.values())
    return [*values, *(one.removeprefix("Bearer ") for one in values)]


@contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turn httpx's errors into ours."""
    import httpx

    try:
        yield
    except httpx.TransportError as error:
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            raise ConfigurationError(f"{url} cannot be asked: {reason(error)}") from None
        # Without what caused it: that has the request in it, with its secrets.
        raise ElsewhereError(EngineDeadError(f"{url} cannot be reached: {_why(error)}")) from None
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{url} is no address: {reason(error)}") from None
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise EngineError(f"{url} gave an answer that cannot be read: {_why(error)}") from None


def _why(error: Exception) -> str:
    name = type(error).__name__
    return f"{name}: {error}" if str(error).strip() else name


async def _read(url: str, response: httpx.Response, most: int | None = None) -> Answer:
    """Return a body up to its limit; of an error, only its beginning is of interest."""
    is_error = response.status_code != 200
    limit = most or (_ERROR_BYTES if is_error else MOST_BYTES)
    found = bytearray()
    async with closed_at_end(response.aiter_bytes()) as parts:
        async for part in parts:
            found += part
            if len(found) > limit:
                if is_error:
                    break
                raise EngineError(f"{url} gave an answer of more than {limit} bytes")
    after = retry_after(response.headers.get("Retry-After"))
    return Answer(response.status_code, bytes(found), after)


async def event_data(url: str, parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the data of each event of a stream (server-sent events), until `[DONE]`.

    Lines end with a line feed: a JSON text may have any other line separator in it.
    """
    rest = bytearray()
    async with closed_at_end(parts) as found:
        async for part in found:
            rest += part
            if b"\n" not in part:
                _check_size(url, rest)
                continue
            *lines, last = rest.split(b"\n")
            rest = bytearray(last)
            for data in map(_data, lines):
                if data == b"[DONE]":
                    await _read_out(found)
                    return
                if data:
                    yield data
    data = _data(rest)  # the last line may have no end
    if data and data != b"[DONE]":
        yield data


async def _read_out(parts: AsyncIterator[bytes]) -> None:
    """Read up to the end of a body, which is due, so that its connection can be used again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            async for _ in parts:
                pass


def _check_size(url: str, line: bytearray) -> None:
    if len(line) > MOST_BYTES:
        raise EngineError(f"{url} gave an event of more than {MOST_BYTES} bytes")


def _data(line: bytes | bytearray) -> bytes:
    return bytes(line[5:]).strip() if line.startswith(b"data:") else b""


def parsed(url: str, data: bytes) -> Json:
    """Return a JSON object, or raise EngineError; NaN and infinity are none of JSON's."""
    try:
        found = _DECODER.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{url} gave an answer that is no JSON: {reason(error)}") from None
    if not isinstance(found, dict):
        raise EngineError(f"{url} gave an answer that is no JSON object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
