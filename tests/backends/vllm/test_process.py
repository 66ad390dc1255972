"""What happens when an engine dies, hangs or is shut down. These need engines of their own."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from tenacity import wait_fixed

from tests.conftest import full_vocabulary_entropy
from uq_llm_integrations import (
    EngineDeadError,
    EngineLostError,
    EngineTimeoutError,
    InvalidRequestError,
    Request,
    RetryErrors,
    Single,
    VLLMEngineBackend,
    run_strategy,
)
from uq_llm_integrations.backends.vllm.launch import install_probe, own_main_module
from uq_llm_integrations.backends.vllm.shared_memory import remains_of
from uq_llm_integrations.checkpoints import resolve_model

pytestmark = pytest.mark.engine

LONG = {"max_tokens": 400, "ignore_eos": True}


def engine_processes() -> set[psutil.Process]:
    """The engine's processes below this one; Python's resource tracker stays by design."""
    multiprocessing.active_children()  # forgets those that have ended
    children = psutil.Process().children(recursive=True)
    return {child for child in children if "resource_tracker" not in " ".join(child.cmdline())}


@pytest.fixture
def engine():
    """A fresh engine that prefills in chunks, and its processes."""
    before = engine_processes()
    with VLLMEngineBackend(
        "smollm2",
        enforce_eager=True,
        max_model_len=512,
        max_logprobs=-1,
        enable_chunked_prefill=True,
        max_num_batched_tokens=64,
        max_num_seqs=8,
        deadline=3.0,
    ) as backend:
        backend.start()
        yield backend, engine_processes() - before


async def outcomes(backend, count: int, doom) -> list:
    """Let some callers wait, bring doom upon the engine, and return what they get."""
    requests = [Request((1, 100 + i), sampling=LONG) for i in range(count)]
    callers = [asyncio.create_task(backend.generate(request)) for request in requests]
    await asyncio.sleep(1)
    doom()
    async with asyncio.timeout(300):  # else a caller that waits for ever would hang the test
        return await asyncio.gather(*callers, return_exceptions=True)


async def test_every_caller_of_a_dead_engine_gets_an_error_and_a_fresh_one_comes_once(engine):
    backend, processes = engine
    memory = remains_of(one.pid for one in processes).memory
    others = engine_processes() - processes
    worker = max(processes, key=lambda process: process.memory_info().rss)
    strategy = RetryErrors(Single(), wait=wait_fixed(0))
    request = Request((1,), sampling={"max_tokens": 100, "ignore_eos": True})
    persistent = asyncio.create_task(run_strategy(strategy, request, backend))
    results = await outcomes(backend, 4, worker.kill)
    assert [type(result) for result in results] == [EngineDeadError] * 4
    assert len(set(map(id, results))) == 4
    again = await persistent
    assert len(again.candidate.token_ids) == 100, "a blocking caller goes on, on a fresh engine"
    (candidate,) = await backend.generate(Request((1,), sampling={"max_tokens": 1}))
    assert len(candidate.token_ids) == 1
    fresh = engine_processes() - others
    memory |= remains_of(one.pid for one in fresh).memory
    worker = max(fresh, key=lambda process: process.memory_info().rss)
    results = await outcomes(backend, 2, worker.kill)
    assert [type(result) for result in results] == [EngineLostError] * 2
    with pytest.raises(EngineLostError, match="restart_engine is 1, restarts so far: 1"):
        await backend.generate(request)
    await asyncio.to_thread(backend.close)
    assert not psutil.wait_procs(processes | fresh, timeout=60)[1]
    assert memory and not memory & {*os.listdir("/dev/shm")}


async def test_every_caller_of_a_hanging_engine_gets_an_error_by_the_deadline(engine):
    """Before it is made to hang, this engine shows that chunks of a prompt do not disturb it."""
    backend, processes = engine
    prompt = tuple(range(1000, 1200))
    request = Request(prompt, top_logprobs=-1, sampling={"max_tokens": 3, "temperature": 0})
    ((candidate,), (other,)) = await asyncio.gather(
        backend.generate(request), backend.generate(request)
    )
    for trace in (candidate.trace, other.trace):
        np.testing.assert_allclose(trace.entropy, full_vocabulary_entropy(trace), atol=1e-6)
    with pytest.raises(InvalidRequestError, match="chunked prefill"):
        await backend.generate(Request(prompt, sampling={"seed": 1}))

    worker = max(processes, key=lambda process: process.memory_info().rss)
    results = await outcomes(backend, 3, lambda: os.kill(worker.pid, signal.SIGSTOP))
    assert [type(result) for result in results] == [EngineTimeoutError] * 3
    assert {str(result) for result in results} == {"no sign of life for 3.0 seconds"}
    core = psutil.Process(worker.ppid())
    await asyncio.to_thread(backend.close)
    assert not core.is_running(), "a killed process was left unreaped"
    assert not psutil.wait_procs(processes, timeout=60)[1]


async def test_a_sleeping_engine_leaves_no_process_and_wakes_with_the_same_answers(engine):
    """On the CPU, where vLLM has no sleep mode."""
    backend, processes = engine
    request = Request((1, 100), sampling={"max_tokens": 8, "temperature": 0})
    (before,) = await backend.generate(request)
    await backend.sleep()
    assert not [process for process in processes if process.is_running()]
    await backend.wake()
    (after,) = await backend.generate(request)
    assert after.token_ids == before.token_ids


async def test_an_engine_of_the_users_own_is_exact_with_the_probe_in_its_configuration():
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    source = resolve_model("smollm2")
    arguments = {**source.engine_args(), "enforce_eager": True, "max_model_len": 256}
    config = AsyncEngineArgs(**arguments, enable_chunked_prefill=False).create_engine_config()
    install_probe(config)
    with own_main_module():  # for the builds that do not match torch, see `child`
        llm = AsyncLLM.from_vllm_config(config)
    try:
        with VLLMEngineBackend(engine=llm) as backend:
            (candidate,) = await backend.generate(Request((1, 2, 3), sampling={"max_tokens": 2}))
            scored = await backend.score((1, 2, 3), candidate.token_ids)
        assert candidate.trace.is_exact and scored.trace.is_exact
        assert await llm.is_sleeping() is False, "closing the backend leaves the engine alone"
    finally:
        llm.shutdown()


def test_the_engine_ends_with_a_program_that_is_killed():
    script = (
        "import time; from uq_llm_integrations import VLLMEngineBackend; "
        "backend = VLLMEngineBackend('smollm2', enforce_eager=True, max_model_len=256); "
        "backend.start(); print('up', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    default = {name: one for name, one in os.environ.items() if name != "VLLM_LOGGING_LEVEL"}
    with subprocess.Popen(command, **quiet, env=default) as program:
        assert program.stdout.readline() == b"up\n", "vLLM writes nothing there"
        processes = psutil.Process(program.pid).children(recursive=True)
        assert len(processes) >= 2
        program.kill()
        assert not psutil.wait_procs(processes, timeout=60)[1]
