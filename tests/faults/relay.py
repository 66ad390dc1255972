"""A server that passes all on to a real one, and gives its answers the faults that are planned."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from uq_llm_integrations.testing import ScriptedServer

Body = dict[str, Any]

SECONDS = 300.0


class Relay(ScriptedServer):
    """What is asked of it is asked of the real server, once for each request."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._upstream = url

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._upstream, timeout=SECONDS)

    async def _other(self, path: str, body: Body) -> Body | None:
        async with self._client() as client:
            method = "POST" if body else "GET"
            response = await client.request(method, path, json=body or None)
        return response.json() if response.status_code == 200 else None

    async def _refusal(self, body: Body) -> str | None:
        return None

    async def _answered(self, body: Body) -> Body:
        async with self._client() as client:
            response = await client.post("/v1/completions", json=body)
        found: Body = response.json()
        return found

    async def _parts(self, body: Body) -> AsyncGenerator[Body, None]:
        client = self._client()
        async with client, client.stream("POST", "/v1/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {") and (choices := json.loads(line[6:])["choices"]):
                    yield choices[0]
