"""A server that speaks the contract and answers from a script, with every failure on demand.

Tokens are bytes, as in `ScriptedBackend`. It shows what was asked of it, and what was cut off.
"""

import asyncio
import base64
import json
import math
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from uq_llm_integrations.backends.token_statistics import COLUMNS
from uq_llm_integrations.backends.token_texts import split_text

SIZE = 256
END = 0
"""The token that ends an answer; it has no text."""


@dataclass
class Fault:
    """What happens to one request instead of, or within, its answer."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    drop_at: int | None = None
    """Close the connection before this token of a stream; 0 is before anything is said."""
    delay: float = 0.0
    token_delay: float = 0.0
    stall_at: int | None = None
    """Say nothing for a minute before this token of a stream."""
    change: Callable[[dict], dict | bytes] | None = None
    """What becomes of each body, and of each event of a stream."""


def probability_rows(token_ids, probability: float) -> np.ndarray:
    """The rows of tokens that have a probability each, where the others share the rest evenly."""
    rest = (1 - probability) / (SIZE - 1)
    p = np.array([probability] + [rest] * (SIZE - 1))
    logs = np.log(p)
    sums = [
        (p * logs).sum(),
        (p * logs**2).sum(),
        logs.sum(),
        (p**0.5).sum(),
        (p**0.25).sum(),
        SIZE,
    ]
    rows = np.zeros((len(token_ids), len(COLUMNS)))
    rows[:, :6], rows[:, 7] = sums, token_ids
    rows[:, 8], rows[:, 9] = math.log(probability), 1
    return rows


class ScriptedServer:
    """Serves on a port of its own, on a thread of its own, until it is closed."""

    def __init__(
        self,
        lines=("Paris",),
        *,
        plugin: bool = True,
        model: str = "scripted",
        api_key: str | None = None,
        only_completions: bool = False,
        probability: float = 0.9,
        chunk: int = 1,
        **capabilities,
    ) -> None:
        self.lines, self.plugin, self.model, self.api_key = list(lines), plugin, model, api_key
        self.only_completions, self.probability, self.chunk = only_completions, probability, chunk
        self.capabilities = {
            "version": 1,
            "package_version": "1",
            "vllm_version": "0.32.0",
            "model": model,
            "vocabulary_size": SIZE,
            "context_length": 4096,
            "max_logprobs": 20,
            "columns": list(COLUMNS),
            "exact": True,
            "reason": None,
            "inspect": False,
            "tokenizer": "bytes",
            "has_chat_template": True,
            "block_size": 16,
            **capabilities,
        }
        self.faults: list[Fault] = []
        """What happens to the next generations, one each."""
        self.always: Fault | None = None
        self.requests: list[tuple[str, dict]] = []
        self.headers: list[dict[str, str]] = []
        self.counts: Counter[str] = Counter()
        """connections, answers (whole ones), aborts (connections that closed before their end)."""
        self.generations = 0
        self._answered = 0
        self._writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._on_loop(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, path: str = "/v1/completions") -> list[dict]:
        """What was sent to a route, but for the probes of the first contact."""
        return [body for at, body in self.requests if at == path and body.get("prompt") != [0]]

    def kill(self) -> None:
        """Close all connections at once, and take no more."""

        async def kill() -> None:
            for listener in self._server.sockets:
                self._loop.remove_reader(listener)
            # What was accepted becomes a connection first: a server that is closed before that
            # leaves the socket open.
            for _ in range(3):
                await asyncio.sleep(0)
            self._server.close()
            for writer in list(self._writers.values()):
                writer.transport.abort()

        self._on_loop(kill())

    def restart(self) -> None:
        """Listen on the same port again."""
        start = asyncio.start_server(self._connected, "127.0.0.1", self.port, reuse_address=True)
        self._server = self._on_loop(start)

    def close(self) -> None:
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

    def __enter__(self) -> "ScriptedServer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _on_loop(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def end(task) -> None:  # even where it was cancelled before it began
            self._writers.pop(task).transport.abort()

        self.counts["connections"] += 1
        task = self._loop.create_task(self._serve(reader, writer))
        self._writers[task] = writer
        task.add_done_callback(end)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) is not None:
                await self._request(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, _DroppedError):
            pass

    async def _request(self, head, reader, writer) -> None:
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

    async def _answer(self, path, headers, body, writer) -> None:
        if path == "/health":
            return await _send(writer, 200, {})
        if self.api_key and headers.get("authorization") != f"Bearer {self.api_key}":
            return await _send(writer, 401, {"error": {"message": f"wrong key {headers}"}})
        if path.endswith("/completions"):
            return await self._completions(path, body, writer)
        found = None if self.only_completions else self._other(path, body)
        if found is None:
            return await _send(writer, 404, {"detail": "Not Found"})
        await _send(writer, 200, found)

    def _other(self, path, body) -> dict | None:
        texts = body.get("text", body.get("prompt"))
        if path == "/v1/models":
            return {"data": [{"id": self.model, "max_model_len": 4096}]}
        if path == "/version":
            return {"version": "0.32.0"}
        if self.plugin and path == "/v1/uq/capabilities":
            return self.capabilities
        if self.plugin and path == "/v1/uq/encode":
            return {"token_ids": list(_encoded(body, texts))}
        if self.plugin and path == "/v1/uq/decode":
            ids = body["token_ids"]
            return {"text": _text(ids), "texts": _texts(ids)}
        if path == "/tokenize":
            return {"tokens": list(_encoded(body, texts)), "max_model_len": 4096}
        if path == "/detokenize":
            return {"prompt": _text(body["tokens"])}
        return None

    async def _completions(self, path, body, writer) -> None:
        if refusal := _refusal(body):
            return await _send(writer, 400, {"error": {"message": refusal, "code": 400}})
        is_probe = body.get("prompt") == [0]
        fault = Fault() if is_probe else self._fault()
        self.generations += not is_probe
        await asyncio.sleep(fault.delay)
        if fault.drop_at == 0:
            raise _DroppedError
        if fault.status or fault.body is not None:
            said = {"error": {"message": "as scripted", "code": fault.status}}
            return await _send(writer, fault.status or 200, fault.body or said, fault.headers)
        if path == "/v1/chat/completions":
            ids = list(_encoded(body, None))
            return await _send(writer, 200, {"prompt_token_ids": ids, "choices": []})
        if body.get("stream"):
            return await self._stream(body, fault, writer)
        answer = self._whole(body)
        await _send(writer, 200, fault.change(answer) if fault.change else answer)
        self.counts["answers"] += 1

    def _fault(self) -> Fault:
        return self.faults.pop(0) if self.faults else self.always or Fault()

    def _line(self) -> list[int]:
        self._answered += 1
        return [*self.lines[(self._answered - 1) % len(self.lines)].encode(), END]

    def _whole(self, body) -> dict:
        if body.get("echo"):
            return {
                "choices": [{"index": 0, "text": _text(body["prompt"]), "finish_reason": "length"}]
            }
        choices = [self._choice(body, index, self._line()) for index in range(body.get("n", 1))]
        usage = {"prompt_tokens_details": {"cached_tokens": 3}}
        return {"model": self.model, "choices": choices, "usage": usage}

    def _choice(self, body, index, line) -> dict:
        ids = line[: body["max_tokens"]]
        choice = self._part(body, ids, 0) | {"index": index}
        choice["finish_reason"] = "stop" if ids == line else "length"
        prompt = body["prompt"]
        choice["prompt_token_ids"] = (
            list(_encoded({}, prompt)) if isinstance(prompt, str) else prompt
        )
        first = body.get("uncertainty_from")
        if self.plugin and first is not None:
            choice["prompt_uncertainty"] = self._uncertainty(prompt[first:], first)
        if (k := body.get("prompt_logprobs")) is not None:
            choice["prompt_logprobs"] = [None, *(self._prompt_row(one, k) for one in prompt[1:])]
        return choice

    def _part(self, body, ids, first) -> dict:
        part = {"index": 0, "text": _text(ids), "token_ids": ids, "finish_reason": None}
        if self.plugin and body.get("uncertainty") == "rows":
            part["uncertainty"] = self._uncertainty(ids, first)
        if (k := body.get("logprobs")) is not None:
            part["logprobs"] = self._logprobs(ids, k)
        return part

    def _uncertainty(self, ids, first) -> dict:
        rows = probability_rows(ids, self.probability)
        data = base64.b64encode(rows.astype("<f8").tobytes()).decode()
        return {"version": 1, "exact": True, "reason": None, "first": first, "rows": data}

    def _others(self, token, k) -> list[int]:
        return [one for one in range(SIZE) if one != token][: k - 1]

    def _logprobs(self, ids, k) -> dict:
        own, rest = math.log(self.probability), math.log((1 - self.probability) / (SIZE - 1))
        tops = [
            {f"token_id:{one}": own} | {f"token_id:{other}": rest for other in self._others(one, k)}
            for one in ids
        ]
        names = [f"token_id:{one}" for one in ids]
        return {"tokens": names, "token_logprobs": [own] * len(ids), "top_logprobs": tops}

    def _prompt_row(self, token, k) -> dict:
        own, rest = math.log(self.probability), math.log((1 - self.probability) / (SIZE - 1))
        row = {str(token): {"logprob": own, "rank": 1}}
        others = enumerate(self._others(token, k), 2)
        return row | {str(one): {"logprob": rest, "rank": rank} for rank, one in others}

    async def _stream(self, body, fault, writer) -> None:
        line = self._line()
        ids = line[: body["max_tokens"]]
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for first in range(0, len(ids), self.chunk):
            if fault.drop_at is not None and first + self.chunk > fault.drop_at:
                await writer.drain()
                raise _DroppedError
            await asyncio.sleep(60 if first == fault.stall_at else fault.token_delay)
            part = self._part(body, ids[first : first + self.chunk], first)
            if first + self.chunk >= len(ids):
                part["finish_reason"] = "stop" if ids == line else "length"
            event = {"choices": [part]}
            changed = fault.change(event) if fault.change else event
            await _send_event(writer, changed)
        await _send_event(
            writer, {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 3}}}
        )
        await _send_event(writer, b"[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        self.counts["answers"] += 1


async def _gone(reader: asyncio.StreamReader) -> None:
    """Return once the client has closed its side, which is how vLLM knows that it is gone."""
    while not reader._eof and reader.exception() is None:
        await asyncio.sleep(0.002)


class _DroppedError(Exception):
    """The connection is to be closed."""


def _refusal(body) -> str | None:
    """What vLLM says of what it does not take."""
    if any(one >= SIZE for one in body.get("stop_token_ids") or ()):
        return f"token_id(s) contain out-of-vocab token ids. Vocabulary size: {SIZE}"
    if (body.get("logprobs") or 0) > SIZE:
        return "Requested sample logprobs, which is greater than max allowed: 20"
    if body.get("temperature") == 0 and body.get("n", 1) > 1:
        return "n must be 1 when using greedy sampling"
    if body.get("max_tokens", 0) > 4096:
        return "max_tokens=9 cannot be greater than max_model_len=4096. Please request fewer"
    return None


def _encoded(body, text) -> bytes:
    if "messages" in body:
        return "\n".join(f"{one['role']}: {one['content']}" for one in body["messages"]).encode()
    return text.encode()


def _text(ids) -> str:
    return bytes(one for one in ids if one != END).decode(errors="replace")


def _texts(ids) -> list[str]:
    return split_text(_text, ids)


async def _send(writer, status, body, headers=None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    await writer.drain()


async def _send_event(writer, event) -> None:
    said = event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode()
    data = b"data: " + said + b"\n\n"
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
    await writer.drain()
