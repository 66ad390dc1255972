"""What exact statistics of a server cost: the server, its client, and the bytes of its answers.

A server with the plugin, whose answers have statistics, against a plain one that was started
separately, asked in turn by the same bare HTTP client. All processes of one stand still while the
other is asked: an idle worker of vLLM spins, and takes a core from its neighbour. Throughput is
tokens a second of whole answers, and the time to the first token that of a stream's first line,
median over all requests, each with a prompt of its own; the figures are first tokens a second, so
that higher is better.

`VLLMServerBackend`, which asks for all rows and makes traces of them, against the official `openai`
client, which asks for an answer and its token ids: answers a second of 64 callers at once, whole
and streamed, from a server in a process of its own that has its answers ready.

Bytes are those of an answer of 20 tokens.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from benchmarks.replaying import replaying_server
from benchmarks.report import best_of, conclude
from tests.vllm_server import MODEL, VLLMServer, vllm_server
from uq_llm_integrations import Request, VLLMServerBackend

REPETITIONS = 6
SERVER_REPETITIONS, SECONDS = 10, 3.0  # equal servers differ by too much in shorter runs
CONCURRENCY = 1, 8, 32
TOKENS = 32
CALLERS, CALLS = 64, 1024
PROMPT = (84, 104, 101)

# As servers are, and that of the tests is not: compiled, with a core for vLLM's own scheduler, less
# than which vLLM warns of.
FLAGS = ("--no-enforce-eager", "--max-num-seqs", "32")
ENVIRONMENT = {"TORCHDYNAMO_DISABLE": "0", "VLLM_CPU_NUM_OF_RESERVED_CPU": "1"}

T = TypeVar("T")
Measure = Callable[[VLLMServer, int], float]

_numbers = itertools.count()


def main() -> None:
    """Measure and conclude."""
    figures, goals = client_figures()
    with both_servers() as servers:
        for measured, reached in (server_figures(servers), body_figures(servers["plugin"])):
            figures, goals = figures | measured, goals | reached
    conclude("server", figures, goals)


@contextmanager
def both_servers(flags: tuple[str, ...] = FLAGS) -> Iterator[dict[str, VLLMServer]]:
    """Yield the server with the plugin and the plain one."""
    with ExitStack() as stack:
        room = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {}
        for name, plugins in (("plugin", "uq_llm"), ("plain", None)):
            (room / name).mkdir()
            server = vllm_server(room / name, plugins=plugins, flags=flags, environment=ENVIRONMENT)
            servers[name] = stack.enter_context(server)
            stack.enter_context(standing_still(servers[name]))
        yield servers


@contextmanager
def standing_still(server: VLLMServer) -> Iterator[None]:
    """Stop all processes of a server until the block ends."""
    os.killpg(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGCONT)


@contextmanager
def awake(server: VLLMServer) -> Iterator[None]:
    """Let a server that stands still go on until the block ends, once it has answered."""
    os.killpg(server.pid, signal.SIGCONT)
    try:
        server.post("completions", **completion(2))
        yield
    finally:
        os.killpg(server.pid, signal.SIGSTOP)


def asked_alone(measure: Measure, server: VLLMServer, callers: int) -> float:
    """Return what is measured of a server while the other one stands still."""
    with awake(server):
        return measure(server, callers)


def server_figures(servers: dict[str, VLLMServer], repetitions: int = SERVER_REPETITIONS) -> Any:
    """Return tokens and first tokens a second of both servers, and the ratios wanted of them."""
    figures, goals = {}, {}
    for callers in CONCURRENCY:
        for what, measure in (("tokens", tokens_a_second), ("first tokens", first_tokens_a_second)):
            runs = {
                f"{name}, {what} a second, {callers} callers": partial(
                    asked_alone, measure, one, callers
                )
                for name, one in servers.items()
            }
            best_of(1, runs)
            found = best_of(repetitions, runs)
            plugin, plain = (values[0] for values in found.values())
            figures |= found
            goals[f"plugin / plain, {what} a second, {callers} callers"] = (0.97, plugin / plain)
    return figures, goals


def tokens_a_second(server: VLLMServer, callers: int) -> float:
    """Return the tokens a second of whole answers."""

    async def ask(client: httpx.AsyncClient) -> int:
        response = await client.post("completions", json=completion(TOKENS))
        response.raise_for_status()
        return TOKENS

    started = time.perf_counter()
    tokens = asyncio.run(asked_again(server, callers, ask))
    return sum(tokens) / (time.perf_counter() - started)


def first_tokens_a_second(server: VLLMServer, callers: int) -> float:
    """Return one over the median time to the first token of streams."""

    async def ask(client: httpx.AsyncClient) -> float:
        started = time.perf_counter()
        body = completion(2) | {"stream": True}
        async with client.stream("POST", "completions", json=body) as response:
            lines = response.aiter_lines()
            await anext(lines)
            seconds = time.perf_counter() - started
            async for _ in lines:
                pass
        return seconds

    return 1 / statistics.median(asyncio.run(asked_again(server, callers, ask)))


async def asked_again(
    server: VLLMServer, callers: int, ask: Callable[[httpx.AsyncClient], Awaitable[T]]
) -> list[T]:
    """Return what so many callers got who asked again and again for some seconds."""
    until = time.perf_counter() + SECONDS
    found: list[T] = []

    async def call(client: httpx.AsyncClient) -> None:
        while time.perf_counter() < until:
            found.append(await ask(client))

    async with httpx.AsyncClient(base_url=f"{server.url}/v1/", timeout=600.0) as client:
        await asyncio.gather(*(call(client) for _ in range(callers)))
    return found


def completion(tokens: int) -> dict[str, Any]:
    """Return a body whose prompt no other has, and whose answer has so many tokens."""
    prompt = f"{next(_numbers)}. The most interesting fact about this number is"
    sampling = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    return {"model": MODEL, "prompt": prompt, "logprobs": None, **sampling}


def client_figures(calls: int = CALLS, repetitions: int = REPETITIONS) -> Any:
    """Return answers a second of our client and of the bare one, and the ratios wanted of them."""
    figures, goals = {}, {}
    with replaying_server() as url:
        for what, ours, bare in (
            ("whole", our_answer, bare_answer),
            ("streamed", our_stream, bare_stream),
        ):
            runs = {
                f"VLLMServerBackend, {what} answers": lambda ours=ours: our_speed(url, ours, calls),
                f"openai, {what} answers": lambda bare=bare: bare_speed(url, bare, calls),
            }
            best_of(1, runs)
            found = best_of(repetitions, runs)
            our_best, bare_best = (values[0] for values in found.values())
            figures |= found
            goals[f"VLLMServerBackend / openai, {what} answers, {CALLERS} callers"] = (
                0.9,
                our_best / bare_best,
            )
    return figures, goals


def our_speed(url: str, answer: Callable[[Any], Awaitable[None]], calls: int) -> float:
    """Return the answers a second of our client."""
    with VLLMServerBackend(url) as backend:
        return asyncio.run(_speed(lambda: answer(backend), calls))


def bare_speed(url: str, answer: Callable[[Any], Awaitable[None]], calls: int) -> float:
    """Return the answers a second of the official client."""
    from openai import AsyncOpenAI

    async def run() -> float:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            return await _speed(lambda: answer(client), calls)

    return asyncio.run(run())


async def _speed(call: Callable[[], Awaitable[None]], calls: int) -> float:
    async def caller() -> None:
        for _ in range(calls // CALLERS):
            await call()

    await call()  # the first contact
    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return calls / (time.perf_counter() - started)


async def our_answer(backend: VLLMServerBackend) -> None:
    """Return once our client has an answer and its trace."""
    (candidate,) = await backend.generate(_request())
    assert candidate.trace.is_exact


async def our_stream(backend: VLLMServerBackend) -> None:
    """Return once our client has a stream and its trace."""
    async for piece in backend.stream(_request()):
        candidate = piece.candidate
    assert candidate is not None and candidate.trace.is_exact


def _request() -> Request:
    return Request(PROMPT, sampling={"max_tokens": TOKENS})


async def bare_answer(client: Any) -> None:
    """Return once the official client has an answer."""
    (choice,) = (await client.completions.create(**_bare_body())).choices
    assert len(choice.token_ids) == TOKENS


async def bare_stream(client: Any) -> None:
    """Return once the official client has a stream."""
    ids: list[int] = []
    async for chunk in await client.completions.create(stream=True, **_bare_body()):
        for choice in chunk.choices:
            ids += choice.token_ids
    assert len(ids) == TOKENS


def _bare_body() -> dict[str, Any]:
    extra = {"return_token_ids": True, "uncertainty": False}
    return {"model": "scripted", "prompt": PROMPT, "max_tokens": TOKENS, "extra_body": extra}


def body_figures(server: VLLMServer) -> Any:
    """Return the bytes of answers of 20 tokens, and how many times larger twenty tops are."""
    kinds = {
        "plain": {"uncertainty": False},
        "statistics": {},
        "rows": {"uncertainty": "rows"},
        "top 20": {"uncertainty": False, "logprobs": 20},
    }
    with awake(server):
        sizes = {
            f"bytes of 20 tokens, {name}": len(server.respond("completions", **body).content)
            for name, fields in kinds.items()
            if (body := {**completion(20), **fields})
        }
    _, statistics_bytes, _, top = sizes.values()
    return sizes, {"bytes of top 20 / of statistics": (10.0, top / statistics_bytes)}


if __name__ == "__main__":
    main()
