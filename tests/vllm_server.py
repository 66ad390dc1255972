"""Real servers of vLLM for tests: a process, its log, and where it answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import httpx

from uq_llm_integrations.checkpoints import resolve_model

ROOT = Path(__file__).parents[1]
MODEL = "smollm2"
SECONDS = 300.0

_FLAGS = (
    *("--dtype", "float32", "--kv-cache-memory-bytes", str(2**30)),
    *("--enforce-eager", "--no-enable-chunked-prefill", "--max-logprobs", "-1"),
    *("--max-model-len", "1024", "--max-num-seqs", "16"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
)
_ENVIRONMENT = {
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "TORCHDYNAMO_DISABLE": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
}
_ENTRY_POINTS = """[vllm.general_plugins]
uq_llm = uq_llm_integrations.backends.server.serving.plugin:register

[vllm.endpoint_plugins]
uq_llm = uq_llm_integrations.backends.server.serving.plugin:ServingPlugin
"""


@dataclass(frozen=True)
class VLLMServer:
    """A server that answers."""

    url: str
    model: str
    log: Path
    pid: int

    def post(self, route: str, **body: object) -> dict:
        """Return the answer to a body, which names the model by itself."""
        response = self.respond(route, **body)
        assert response.status_code == 200, response.text
        return response.json()

    def respond(self, route: str, **body: object) -> httpx.Response:
        """Return the response to a body, whatever its status."""
        named = {"model": self.model, **body}
        return httpx.post(f"{self.url}/v1/{route}", json=named, timeout=SECONDS)

    def stream(self, route: str, **body: object) -> Iterator[str]:
        """Yield the data of a stream's chunks, but for the last line."""
        named = {"model": self.model, "stream": True, **body}
        with httpx.stream("POST", f"{self.url}/v1/{route}", json=named, timeout=SECONDS) as lines:
            for line in lines.iter_lines():
                if line.startswith("data: {"):
                    yield line.removeprefix("data: ")


@contextmanager
def vllm_server(
    folder: Path,
    *,
    plugins: str | None,
    flags: Sequence[str] = (),
    environment: dict[str, str] | None = None,
) -> Iterator[VLLMServer]:
    """Run a server of the small model, with this value of VLLM_PLUGINS, until the block ends."""
    log, port = folder / "server.log", free_port()
    process = start(folder, log, port, plugins, flags, environment or {})
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(process, url, log)
        yield VLLMServer(url, MODEL, log, process.pid)
    finally:
        end(process)


def start(
    folder: Path,
    log: Path,
    port: int,
    plugins: str | None,
    flags: Sequence[str] = (),
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server, in a session of its own."""
    source = resolve_model(MODEL)
    source.prepare()
    command = [sys.executable, "-m", "tests.backends.server.server_program", *_FLAGS, *flags]
    command += ["--model", source.path, "--served-model-name", MODEL]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    variables = {**os.environ, **_ENVIRONMENT, **(environment or {})}
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), *installed(folder)])
    variables.pop("VLLM_PLUGINS", None)
    if plugins is not None:
        variables["VLLM_PLUGINS"] = plugins
    with log.open("wb") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=variables, stdout=output, stderr=output, start_new_session=True
        )


def installed(folder: Path) -> list[str]:
    """Return a folder that says of the plugin that it is installed, where nothing else does."""
    if "uq_llm" in entry_points(group="vllm.general_plugins").names:
        return []
    distribution = folder / "site" / "uq_llm_dev-0.dist-info"
    distribution.mkdir(parents=True, exist_ok=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: uq-llm-dev\nVersion: 0\n")
    (distribution / "entry_points.txt").write_text(_ENTRY_POINTS)
    return [str(distribution.parent)]


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return once a server answers; fail with its log where it has ended."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=5.0).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"the server did not start:\n{log.read_text()[-4000:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and all of its processes."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
