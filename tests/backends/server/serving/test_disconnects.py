"""Clients that leave a real server: vLLM aborts what they asked for, and the plugin forgets it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import httpx
import pytest

from tests.conftest import eventually
from tests.vllm_server import VLLMServer
from uq_llm_integrations import Request, VLLMServerBackend

pytestmark = pytest.mark.engine

LONG = {"temperature": 0.0, "max_tokens": 900, "ignore_eos": True}
COUNT, AT_ONCE = 300, 50


def figure(server: VLLMServer, name: str) -> float:
    """Return the sum of a metric's values."""
    text = httpx.get(f"{server.url}/metrics").text
    return sum(float(one) for one in re.findall(rf"^vllm:{name}{{.*}} (\S+)$", text, re.M))


def is_idle(server: VLLMServer) -> bool:
    return figure(server, "num_requests_running") + figure(server, "num_requests_waiting") == 0


async def kept_by_plugin(server: VLLMServer) -> str:
    """Return what the server says that its process has of the plugin's objects."""
    count = server.log.read_bytes().count(b"kept by the plugin")
    os.kill(server.pid, signal.SIGUSR1)
    await eventually(lambda: server.log.read_bytes().count(b"kept by the plugin") > count)
    return re.findall(r"kept by the plugin: (.*)", Path(server.log).read_text())[-1]


async def test_the_server_says_what_it_keeps(exact_server):
    with VLLMServerBackend(exact_server.url) as backend:
        stream = backend.stream(Request((504, 3575), sampling=LONG))
        await anext(stream)
        assert int(await kept_by_plugin(exact_server)) > 0
        await stream.aclose()


async def leave_stream(backend: VLLMServerBackend, number: int) -> None:
    stream = backend.stream(Request((504, 3575, number), sampling=LONG))
    await anext(stream)
    await stream.aclose()


async def leave_call(backend: VLLMServerBackend, number: int) -> None:
    task = asyncio.ensure_future(backend.generate(Request((504, 3575, number), sampling=LONG)))
    await asyncio.sleep(number % 10 / 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave(backend: VLLMServerBackend, number: int) -> None:
    await (leave_call if number % 3 == 0 else leave_stream)(backend, number)


async def test_what_clients_leave_is_aborted_and_forgotten(exact_server):
    with VLLMServerBackend(exact_server.url) as backend:
        ids = await backend.encode("What is the capital of France?", chat=True)
        request = Request(ids, sampling={"temperature": 0.0, "max_tokens": 6})
        (expected,) = await backend.generate(request)
        tokens = figure(exact_server, "generation_tokens_total")
        for first in range(0, COUNT, AT_ONCE):
            await asyncio.gather(*(leave(backend, first + one) for one in range(AT_ONCE)))
        await eventually(lambda: is_idle(exact_server))
        # Had they been left to run, they would have made 900 tokens each.
        assert figure(exact_server, "generation_tokens_total") - tokens < COUNT * 90
        await eventually(lambda: nothing_is_kept(exact_server))
        (found,) = await backend.generate(request)
    assert found.token_ids == expected.token_ids and found.trace.is_exact
    assert found.trace.entropy.tolist() == pytest.approx(expected.trace.entropy.tolist(), abs=1e-6)


async def nothing_is_kept(server: VLLMServer) -> bool:
    return await kept_by_plugin(server) == "0"
