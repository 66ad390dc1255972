"""Calls that are given up: the server hears of it, and nothing of them stays."""

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc

import pytest

from tests.conftest import eventually
from uq_llm_integrations import Request, SampleMonitor
from uq_llm_integrations.testing import Fault

PROMPT = tuple(b"The capital of France is")


@pytest.fixture
def slow(serve):
    """A server that takes a minute for the rest of its answer."""
    server = serve(["Paris is the capital of France"])
    server.always = Fault(stall_at=len("Paris is the"))
    return server


async def test_closing_a_stream_aborts_it_on_the_server(slow, connect):
    backend = connect(slow)
    stream = backend.stream(Request(PROMPT))
    await anext(stream)
    await stream.aclose()
    await eventually(lambda: slow.counts["aborts"] == 1)
    assert slow.counts["answers"] == 0


async def test_leaving_a_blocking_stream_aborts_it_on_the_server(slow, connect):
    backend = connect(slow)

    def leave() -> None:
        for _ in backend.iterate(backend.stream(Request(PROMPT))):
            return

    await asyncio.to_thread(leave)
    await eventually(lambda: slow.counts["aborts"] == 1)


@pytest.mark.parametrize("is_watched", [False, True])
async def test_cancelling_a_call_aborts_all_of_it_on_the_server(serve, connect, is_watched):
    server = serve(["Paris"])
    server.always = Fault(delay=60)
    backend = connect(server)
    monitor = SampleMonitor(enough=lambda finished: False) if is_watched else None
    task = asyncio.ensure_future(backend.generate(Request(PROMPT, n=3), monitor))
    requests = 3 if is_watched else 1
    await eventually(lambda: len(server.bodies()) == requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: server.counts["aborts"] == requests)


async def test_what_ends_early_is_aborted_on_the_server(slow, connect):
    backend = connect(slow)
    (found,) = await backend.generate(Request(PROMPT, until=lambda text: "is" in text))
    assert found.finish_reason == "boundary"
    await eventually(lambda: slow.counts["aborts"] == 1)


async def test_connections_are_used_again(serve, connect):
    server = serve(["Paris"])
    backend = connect(server)
    for _ in range(10):
        await backend.generate(Request(PROMPT))
        async for _ in backend.stream(Request(PROMPT)):
            pass
    assert server.counts["connections"] == 1


async def test_memory_is_flat_over_aborted_requests(serve, connect):
    server = serve(["Paris is the capital of France"])
    count = int(os.environ.get("UQ_ABORTS", "300"))  # 10,000 by hand
    await check_memory(connect(server), server, 150, count)


async def check_memory(backend, server, first: int, then: int) -> None:
    """Check that aborted requests, after the first ones, leave next to nothing behind each."""
    await backend.encode("?")  # the first contact is no request that could be aborted
    server.always = Fault(token_delay=60)
    await abort(backend, server, first)
    tracemalloc.start()
    try:
        before = held()
        await abort(backend, server, then)
        grown = held() - before
    finally:
        tracemalloc.stop()
    assert grown < 100_000 + 50 * then  # caches of the standard library, and next to nothing each


async def abort(backend, server, count: int) -> None:
    aborted = server.counts["aborts"]

    async def one() -> None:
        asked = len(server.requests)
        task = asyncio.ensure_future(anext(backend.stream(Request(PROMPT))))
        await eventually(lambda: len(server.requests) > asked)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for _ in range(count):
        await one()
    await eventually(lambda: server.counts["aborts"] == aborted + count)
    server.requests.clear()
    server.headers.clear()


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


LEFT_OPEN = """
import gc
from uq_llm_integrations.testing import ScriptedServer
from uq_llm_integrations import Request, VLLMServerBackend

server = ScriptedServer(["Paris"])

def begin():
    backend = VLLMServerBackend(server.url)
    pieces = backend.iterate(backend.stream(Request((65,))))
    return next(pieces), pieces, backend

begin()
gc.collect()
print(begin()[0].text)
kept = begin()
"""


@pytest.mark.subprocess
def test_a_program_that_leaves_streams_open_ends_in_silence():
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", LEFT_OPEN],
        capture_output=True,
        text=True,
    )
    said = [one for one in done.stderr.splitlines() if one.startswith(("Task", "an error", "Res"))]
    assert (done.stdout, said) == ("P\n", []), done.stderr
