"""vLLM's router as a program of its own before some servers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.vllm_server import free_port

SECONDS = 60


@contextmanager
def vllm_router(
    folder: Path, servers: Sequence[str], *, policy: str = "cache_aware"
) -> Iterator[str]:
    """Run the router before these addresses until the block ends; yield its own address."""
    port, log = free_port(), folder / "router.log"
    program = shutil.which("vllm-router", path=str(Path(sys.executable).parent))
    assert program
    options = {"--port": port, "--prometheus-port": free_port(), "--policy": policy}
    command = [program, "--host", "127.0.0.1"]
    command += [str(part) for pair in options.items() for part in pair]
    command += ["--worker-urls", *servers]
    with (
        log.open("wb") as written,
        subprocess.Popen(command, stdout=written, stderr=written) as one,
    ):
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            one.terminate()


def _wait_for(url: str, log: Path) -> None:
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        with suppress(httpx.HTTPError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())
