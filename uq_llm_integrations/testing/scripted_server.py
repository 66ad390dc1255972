"""A server that speaks vLLM's API and the plugin's, and answers from a script, or lies."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, Self, TypeVar

from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.backends.token_statistics import COLUMNS
from uq_llm_integrations.testing import scripted_answers
from uq_llm_integrations.testing.scripted_answers import (
    MODEL_LENGTH,
    SIZE,
    USAGE,
    Lines,
    ScriptedAnswers,
    texts_of,
)
from uq_llm_integrations.testing.server_faults import Body, Fault

T = TypeVar("T")

_CLOSE_SECONDS = 30
_BACKLOG = 2048
"""How many connections may wait, as of uvicorn, on which vLLM serves."""

_STALL_SECONDS = 3600.0


class ScriptedServer:
    """Serves on a port of its own, on a thread of its own, until it is closed.

    It answers with its `lines` in turn, or with what they return for a prompt's text where they are
    a function. A token is a byte, and each has the `probability`, as in `ScriptedBackend`; with
    `plugin` all traces are exact. `chunk` is how many tokens each event of a stream has, and
    `capabilities` changes what the plugin says of the server. With `only_completions` it is a
    router that knows no other routes.

    `faults` happen to the next generations, one each, and `always` to all others. A `plan` says by
    the body of a request which fault it gets, before both.

    Example:
        from uq_llm_integrations.testing import Fault, ScriptedServer

        with ScriptedServer(["Paris"]) as server, VLLMServerBackend(server.url) as backend:
            server.faults = [Fault(status=503)]
            backend.run(backend.generate(Request((65,))))  # raises EngineDeadError
    """

    def __init__(
        self,
        lines: Lines = ("Paris",),
        *,
        plugin: bool = True,
        model: str = "scripted",
        api_key: str | None = None,
        only_completions: bool = False,
        probability: float = 0.9,
        chunk: int = 1,
        **capabilities: object,
    ) -> None:
        self.plugin, self.model, self.api_key = plugin, model, api_key
        self.only_completions, self.chunk = only_completions, chunk
        self.answers = ScriptedAnswers(lines, plugin=plugin, model=model, probability=probability)
        self.capabilities = {**_capabilities(model), **capabilities}
        self.faults: list[Fault] = []
        """What happens to the next generations, one each."""
        self.always: Fault | None = None
        self.plan: Callable[[Body], Fault | None] | None = None
        self.requests: list[tuple[str, Body]] = []
        """All requests: the route and the body."""
        self.headers: list[dict[str, str]] = []
        self.counts: Counter[str] = Counter()
        """connections, answers (whole ones), aborts (connections that closed before their end)."""
        self.generations = 0
        self._writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._listen(0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, path: str = "/v1/completions") -> list[Body]:
        """Return what was sent to a route, but for the probes of the first contact."""
        return [body for at, body in self.requests if at == path and body.get("prompt") != [0]]

    def kill(self) -> None:
        """Close all connections at once, and take no more."""
        self._on_loop(self._die())

    def restart(self) -> None:
        """Listen on the same port again, if it does not."""
        if self._server.is_serving():
            return
        self._server = self._listen(self.port)

    def close(self) -> None:
        """End the server, its connections and its thread. Closing twice is harmless."""
        if self._loop.is_closed():
            return
        self.kill()

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._on_loop(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, port: int) -> asyncio.Server:
        start = asyncio.start_server(self._connected, "127.0.0.1", port, backlog=_BACKLOG)
        return self._on_loop(start)

    def _on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CLOSE_SECONDS)

    async def _die(self) -> None:
        if not self._server.is_serving():
            return
        for listener in self._server.sockets:
            self._loop.remove_reader(listener.fileno())
        # What was accepted becomes a connection first: a server that is closed before that
        # leaves the socket open.
        for _ in range(3):
            await asyncio.sleep(0)
        self._server.close()
        for writer in list(self._writers.values()):
            writer.transport.abort()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def end(task: asyncio.Task[None]) -> None:  # even where it was cancelled before it began
            self._writers.pop(task).transport.abort()

        self.counts["connections"] += 1
        task = self._loop.create_task(self._serve(reader, writer))
        self._writers[task] = writer
        task.add_done_callback(end)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._request(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, _DroppedError):
            pass

    async def _request(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        first, *lines = head.decode().split("\r\n")
        _, path, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
        data = await reader.readexactly(int(headers.get("content-length", 0)))
        body = json.loads(data) if data else {}
        self.requests.append((path, body))
        self.headers.append(headers)
        answer = asyncio.ensure_future(self._answer(path, headers, body, writer))
        gone = asyncio.ensure_future(_gone(reader))
        await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not answer.done() or isinstance(answer.exception(), ConnectionError):
            answer.cancel()
            self.counts["aborts"] += 1
            raise _DroppedError
        await answer

    async def _answer(
        self, path: str, headers: Mapping[str, str], body: Body, writer: asyncio.StreamWriter
    ) -> None:
        if path == "/health":
            return await _send(writer, 200, {})
        if self.api_key and headers.get("authorization") != f"Bearer {self.api_key}":
            return await _send(writer, 401, {"error": {"message": f"wrong key {headers}"}})
        if path.endswith("/completions"):
            return await self._completions(path, body, writer)
        found = None if self.only_completions else await self._other(path, body)
        if found is None:
            return await _send(writer, 404, {"detail": "Not Found"})
        return await _send(writer, 200, found)

    async def _other(self, path: str, body: Body) -> Body | None:
        texts = body.get("text", body.get("prompt"))
        if path == "/v1/models":
            return {"data": [{"id": self.model, "max_model_len": MODEL_LENGTH}]}
        if path == "/version":
            return {"version": "0.32.0"}
        if self.plugin and path == "/v1/uq/capabilities":
            return self.capabilities
        if self.plugin and path == "/v1/uq/encode":
            return {"token_ids": [*scripted_answers.encoded(body, texts)]}
        if self.plugin and path == "/v1/uq/decode":
            ids = body["token_ids"]
            return {"text": scripted_answers.shown(ids), "texts": texts_of(ids)}
        if path == "/tokenize":
            tokens = [*scripted_answers.encoded(body, texts)]
            return {"tokens": tokens, "max_model_len": MODEL_LENGTH}
        if path == "/detokenize":
            return {"prompt": scripted_answers.shown(body["tokens"])}
        return None

    async def _completions(self, path: str, body: Body, writer: asyncio.StreamWriter) -> None:
        if refused := await self._refusal(body):
            return await _send(writer, 400, {"error": {"message": refused, "code": 400}})
        is_probe = body.get("prompt") == [0]
        fault = Fault() if is_probe else self._fault(body)
        self.generations += not is_probe
        await asyncio.sleep(fault.delay)
        if fault.dies == "before" or fault.drop_at == 0:
            await self._drop(fault, writer)
        if fault.status or fault.body is not None:
            said = {"error": {"message": "as scripted", "code": fault.status}}
            return await _send(writer, fault.status or 200, fault.body or said, fault.headers)
        if path == "/v1/chat/completions":
            ids = [*scripted_answers.encoded(body, None)]
            return await _send(writer, 200, {"prompt_token_ids": ids, "choices": []})
        await (self._stream if body.get("stream") else self._whole)(body, fault, writer)
        self.counts["answers"] += 1
        if fault.dies == "after":
            await self._die()
        return None

    def _fault(self, body: Body) -> Fault:
        planned = self.plan(body) if self.plan else None
        return planned or (self.faults.pop(0) if self.faults else self.always or Fault())

    async def _drop(self, fault: Fault, writer: asyncio.StreamWriter) -> None:
        """Close the connection, and with it the server where that dies."""
        await writer.drain()
        if fault.resets:
            linger = struct.pack("ii", 1, 0)  # closing sends a reset
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if fault.dies:
            await self._die()
        raise _DroppedError

    async def _whole(self, body: Body, fault: Fault, writer: asyncio.StreamWriter) -> None:
        answer = await self._answered(body)
        said = fault.change(answer) if fault.change else answer
        message = _message(200, said)
        if fault.stall_at is not None:
            writer.write(message[: len(message) // 2])
            await asyncio.sleep(_STALL_SECONDS)
        if fault.cut_at is not None:
            writer.write(message[: int(len(message) * fault.cut_at)])
            await self._drop(fault, writer)
        writer.write(message)
        await writer.drain()

    async def _stream(self, body: Body, fault: Fault, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        first = 0
        async with closed_at_end(self._parts(body)) as parts:
            async for part in parts:
                after = first + len(part["token_ids"])
                if fault.end_at is not None and after > fault.end_at:
                    break
                if fault.drop_at is not None and after > fault.drop_at:
                    await self._drop(fault, writer)
                stalls = fault.stall_at is not None and first <= fault.stall_at < after
                await asyncio.sleep(_STALL_SECONDS if stalls else fault.token_delay)
                event = {"choices": [part]}
                await _send_event(writer, fault.change(event) if fault.change else event)
                first = after
        await _send_event(writer, {"choices": [], "usage": USAGE})
        await _send_event(writer, b"[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _refusal(self, body: Body) -> str | None:
        return scripted_answers.refusal(body)

    async def _answered(self, body: Body) -> Body:
        return self.answers.whole(body)

    async def _parts(self, body: Body) -> AsyncGenerator[Body, None]:
        """Yield what the choice of each event of a stream is."""
        line = self.answers.line(body)
        ids = line[: body["max_tokens"]]
        for first in range(0, len(ids), self.chunk):
            part = self.answers.part(body, ids[first : first + self.chunk], first)
            if first + self.chunk >= len(ids):
                part["finish_reason"] = "stop" if ids == line else "length"
            yield part


async def _gone(reader: asyncio.StreamReader) -> None:
    """Return once the client has closed its side, which is how vLLM knows that it is gone."""
    while not reader._eof and reader.exception() is None:  # type: ignore[attr-defined]  # no name
        await asyncio.sleep(0.002)


class _DroppedError(Exception):
    """The connection is to be closed."""


def _capabilities(model: str) -> Body:
    return {
        "version": 1,
        "package_version": "1",
        "vllm_version": "0.32.0",
        "model": model,
        "vocabulary_size": SIZE,
        "context_length": MODEL_LENGTH,
        "max_logprobs": 20,
        "columns": list(COLUMNS),
        "exact": True,
        "reason": None,
        "inspect": False,
        "tokenizer": "bytes",
        "has_chat_template": True,
        "block_size": 16,
    }


def _message(status: int, body: Body | bytes, headers: Mapping[str, str] | None = None) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: Body | bytes,
    headers: Mapping[str, str] | None = None,
) -> None:
    writer.write(_message(status, body, headers))
    await writer.drain()


async def _send_event(writer: asyncio.StreamWriter, event: Body | bytes) -> None:
    said = event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode()
    data = b"data: " + said + b"\n\n"
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()
