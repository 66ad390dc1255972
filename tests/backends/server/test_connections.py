"""Connections are used again, one request at a time, and not for ever."""

import asyncio

import httpx
import pytest

from uq_llm_integrations import ConfigurationError, Request
from uq_llm_integrations.backends.server import connections
from uq_llm_integrations.backends.server.connections import Connections


@pytest.fixture
def server(serve):
    return serve(["Paris"])


async def many(backend, count: int) -> None:
    await asyncio.gather(*(backend.generate(Request((1, 2))) for _ in range(count)))


async def test_callers_use_the_connections_of_those_before(server, connect):
    backend = connect(server)
    await many(backend, 8)
    opened = server.counts["connections"]
    assert opened <= 8 + 1  # one is of the first contact
    for _ in range(3):
        await many(backend, 8)
    assert server.counts["connections"] == max(opened, 8)


async def test_a_connection_that_nobody_used_for_long_is_closed(server, connect, monkeypatch):
    monkeypatch.setattr(connections, "_IDLE_SECONDS", 0.0)
    backend = connect(server)
    for _ in range(3):
        await many(backend, 1)
    assert len(backend._link.fleet()._wire.client._transport._all) == 1


@pytest.mark.parametrize("is_kept", [False, True])
async def test_a_request_that_is_cancelled_at_any_turn_leaves_no_connection_that_hangs(
    server, is_kept
):
    async with httpx.AsyncClient(transport=Connections(), timeout=None) as client:
        for turns in range(60):
            if is_kept:
                await client.get(f"{server.url}/health")
            task = asyncio.ensure_future(client.get(f"{server.url}/health"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with asyncio.timeout(20):
                await client.get(f"{server.url}/health")


async def test_a_proxy_of_the_environment_is_left_to_httpx(server, connect, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    with pytest.raises(ConfigurationError, match="HTTP 404"):  # the scripted server is no proxy
        await connect("http://unknown.invalid").generate(Request((1, 2)))
    assert server.requests[0][0].startswith("http://unknown.invalid/")
