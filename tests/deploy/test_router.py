"""vLLM's own router before two servers: the client uses the two routes that every router has."""

import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.backends.server.scripted_server import ScriptedServer
from uq_llm_integrations import ChatVLLMUncertainty, UncertaintyModel, VLLMServerBackend

pytestmark = pytest.mark.subprocess

SECONDS = 60
PARIS = "The capital of France is Paris."


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def servers():
    found = [ScriptedServer([PARIS], api_key="sk-1", only_completions=True) for _ in range(2)]
    yield found
    for one in found:
        one.close()


@pytest.fixture(scope="module")
def router(servers, tmp_path_factory):
    port, log = free_port(), tmp_path_factory.mktemp("router") / "log"
    program = shutil.which("vllm-router", path=str(Path(sys.executable).parent))
    assert program
    options = {"--port": port, "--prometheus-port": free_port(), "--policy": "cache_aware"}
    command = [program, "--host", "127.0.0.1"]
    command += [str(part) for pair in options.items() for part in pair]
    command += ["--worker-urls", *[one.url for one in servers]]
    with (
        log.open("wb") as written,
        subprocess.Popen(command, stdout=written, stderr=written) as one,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            one.terminate()


def wait_for(url: str, log: Path) -> None:
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        with suppress(httpx.HTTPError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture
def backend(router):
    with VLLMServerBackend(
        router, model="scripted", routes="completions", api_key="sk-1"
    ) as backend:
        yield backend


def test_an_answer_comes_through_with_exact_statistics(backend):
    result = UncertaintyModel(backend, methods=["entropy"]).generate("Capital of France?")
    assert result.text == PARIS and result.trace.is_exact
    assert result.score("entropy").is_known


def test_so_does_each_piece_of_a_stream(backend):
    chat = ChatVLLMUncertainty(backend=backend, methods=["entropy"])
    chunks = list(chat.stream("Capital of France?"))
    whole = sum(chunks[1:], chunks[0])
    assert len(chunks) > 2 and whole.content == PARIS
    assert whole.response_metadata["uncertainty"]["scores"]["entropy"] > 0


def test_prompts_that_begin_alike_go_to_one_server(backend, servers):
    before = [one.generations for one in servers]
    for question in ("France", "Italy", "Spain"):
        UncertaintyModel(backend).generate(f"What is the capital of the country of {question}?")
    assert 0 in [one.generations - had for one, had in zip(servers, before, strict=True)]
