"""A server that answers each request as a scripted one did the first time, at hardly any cost.

It runs in a process of its own and prints its port. A stream comes as a whole, so that what is
measured is its reader.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from uq_llm_integrations.testing import ScriptedServer

ANSWER = "The capital of France is Paris, which is on the Seine, in the north of the country. " * 2
_LENGTH = re.compile(rb"content-length: (\d+)", re.I)


@contextmanager
def replaying_server() -> Iterator[str]:
    """Yield the address of such a server, which ends with the block."""
    command = [sys.executable, "-m", "benchmarks.replaying"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


async def serve(source: str) -> None:
    """Print the port, then answer for ever."""
    known: dict[tuple[bytes, bytes], bytes] = {}
    async with httpx.AsyncClient(base_url=source) as client:

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while (request := await _request(reader)) is not None:
                if request not in known:
                    known[request] = await _recorded(client, *request)
                writer.write(known[request])
            writer.close()

        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


async def _request(reader: asyncio.StreamReader) -> tuple[bytes, bytes] | None:
    """Return the first line and the body of the next request, None behind the last."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    length = _LENGTH.search(head)
    body = await reader.readexactly(int(length[1])) if length else b""
    return head.partition(b"\r\n")[0], body


async def _recorded(client: httpx.AsyncClient, line: bytes, body: bytes) -> bytes:
    method, path, _ = line.decode().split(" ")
    answer = await client.request(method, path, content=body)
    kind = "text/event-stream" if answer.text.startswith("data:") else "application/json"
    head = f"HTTP/1.1 {answer.status_code} Status\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(answer.content)}\r\n\r\n".encode() + answer.content


if __name__ == "__main__":
    with ScriptedServer([ANSWER]) as scripted:
        asyncio.run(serve(scripted.url))
