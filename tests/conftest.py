"""One engine for the whole run, and the things that many tests need."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator

# Before vLLM is imported anywhere.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import hypothesis
import numpy as np
import pytest
from pytest_socket import disable_socket, enable_socket, socket_allow_hosts

from tests.vllm_server import VLLMServer, vllm_server
from uq_llm_integrations import ScriptedBackend, TokenTrace, VLLMEngineBackend
from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.methods import registry
from uq_llm_integrations.records import Floats

hide_mismatched_builds(from_vllm=True)

# A busy machine is no reason for a test to fail.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

ENGINE_ARGUMENTS = {
    "enforce_eager": True,
    "max_logprobs": -1,
    "max_model_len": 1024,
    "max_num_seqs": 16,
    "num_gpu_blocks_override": 24,  # so little cache that requests get preempted
    "disable_log_stats": False,  # the tests read the engine's own counters
}


def pytest_configure() -> None:
    """Have no current event loop outside of tasks: LlamaIndex would make one and leave it open."""
    asyncio.set_event_loop(None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Only tests of a real engine or of a program of its own may open a socket.

    Tests with a scripted server may reach this machine, and no other.
    """
    marks = {mark.name for mark in item.iter_markers()}
    if {"engine", "subprocess"} & marks:
        enable_socket()
    elif "loopback" in marks:
        enable_socket()
        socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)
    else:
        disable_socket(allow_unix_socket=True)


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this test alone see what it registers; the catalogue itself never forgets a name."""
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    monkeypatch.setattr(registry, "_by_name", dict(registry._by_name))
    monkeypatch.setattr(registry, "_loaded", set())


@pytest.fixture(scope="session")
def backend() -> Iterator[VLLMEngineBackend]:
    """The real engine with the real model."""
    with VLLMEngineBackend("smollm2", **ENGINE_ARGUMENTS) as backend:
        backend.start()
        yield backend


@pytest.fixture(scope="session")
def exact_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """A real server with the real model and the plugin."""
    with vllm_server(tmp_path_factory.mktemp("exact"), plugins="uq_llm") as server:
        yield server


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """A real server with the real model, and the plugin installed, but not switched on."""
    with vllm_server(tmp_path_factory.mktemp("plain"), plugins=None) as server:
        yield server


@pytest.fixture(scope="session")
def capital_ids(backend: VLLMEngineBackend) -> tuple[int, ...]:
    """A question in the model's chat template."""
    return backend.run(backend.encode("What is the capital of France?", chat=True))


def full_vocabulary_entropy(trace: TokenTrace) -> Floats:
    """The entropies that follow from all V log-probabilities, written out."""
    logprobs = full_vocabulary(trace)
    return -(np.exp(logprobs) * logprobs).sum(-1)


def full_vocabulary(trace: TokenTrace) -> Floats:
    """All V log-probabilities; those of an engine, in float32, sum to one to five digits only."""
    logprobs = trace.top_logprobs
    assert logprobs is not None and logprobs.shape[1] == trace.vocabulary_size
    return logprobs - np.logaddexp.reduce(logprobs, -1, keepdims=True)


class Meeting(ScriptedBackend):
    """Answers only once so many generations are under way at the same time."""

    def __init__(self, script, calls: int) -> None:
        super().__init__(script)
        self.barrier = asyncio.Barrier(calls)

    async def generate(self, request, monitor=None):
        async with asyncio.timeout(60):  # else a test that fails would never end
            await self.barrier.wait()
        return await super().generate(request, monitor)


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until a condition holds; a minute is enough for any, however busy the machine is."""
    async with asyncio.timeout(60):
        while not (found if isinstance(found := condition(), bool) else await found):
            await asyncio.sleep(0.01)
