"""Interrupted starts, forks, copies and the program's end: nothing is left, harmed or hanging."""

import asyncio
import copy
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import ENGINE_ARGUMENTS, eventually
from uq_llm_integrations import (
    ConfigurationError,
    EngineClosedError,
    EngineError,
    EngineTimeoutError,
    Request,
    VLLMEngineBackend,
)

GREEDY = {"temperature": 0, "max_tokens": 4}
LONG = {"max_tokens": 200, "ignore_eos": True}

SMALL = {"enforce_eager": True, "max_model_len": 256}


def test_copies_and_what_is_unpickled_are_equal():
    original = VLLMEngineBackend("smollm2", max_n=3, deadline=7.0, restart_engine=2, **SMALL)
    for other in (
        copy.copy(original),
        copy.deepcopy(original),
        pickle.loads(pickle.dumps(original)),
    ):
        assert other is not original
        assert other == original and hash(other) == hash(original)
        assert other.capabilities == original.capabilities


@pytest.mark.parametrize(
    "changed", [{"max_n": 4}, {"deadline": 1.0}, {"restart_engine": 0}, {"max_model_len": 128}]
)
def test_other_arguments_make_another_backend(changed):
    arguments = {"max_n": 3, "deadline": 7.0, **SMALL}
    first = VLLMEngineBackend("smollm2", **arguments)
    assert first != VLLMEngineBackend("smollm2", **arguments | changed)


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "1", None])
def test_how_often_an_engine_is_started_again_is_a_whole_number(wrong):
    with pytest.raises(ConfigurationError, match=r"restart_engine is .*whole numbers from 0"):
        VLLMEngineBackend("smollm2", restart_engine=wrong)


@pytest.mark.engine
def test_copies_share_the_engine_and_closing_one_harms_no_other(backend, capital_ids):
    copies = [copy.deepcopy(backend), pickle.loads(pickle.dumps(backend))]
    assert {id(one.start()) for one in copies} == {id(backend.start())}
    for one in copies:
        one.close()
    assert backend.run(backend.generate(Request(capital_ids, sampling=GREEDY)))


@pytest.mark.engine
def test_a_backend_on_a_ready_engine_is_copied_but_not_pickled(backend, capital_ids):
    ready = VLLMEngineBackend(engine=backend.start().llm)
    other = copy.deepcopy(ready)
    assert other == ready and other.start() is ready.start()
    other.close()
    assert ready.run(ready.generate(Request(capital_ids, sampling=GREEDY)))
    with pytest.raises(ConfigurationError, match="cannot be pickled"):
        pickle.dumps(ready)


@pytest.mark.engine
async def test_first_uses_at_the_same_time_count_as_one_user(backend, capital_ids):
    other = copy.deepcopy(backend)
    request = Request(capital_ids, sampling=GREEDY)
    await asyncio.gather(*(other.generate(request) for _ in range(4)))
    await asyncio.to_thread(other.close)
    assert await backend.generate(request)


@pytest.mark.engine
async def test_a_tiny_deadline_ends_its_own_call_and_nobody_elses(backend, capital_ids):
    impatient = VLLMEngineBackend("smollm2", deadline=0.02, **ENGINE_ARGUMENTS)
    engine = backend.start()
    assert impatient.start() is engine
    other = asyncio.create_task(backend.generate(Request(capital_ids, sampling=LONG)))
    late = asyncio.create_task(impatient.generate(Request(capital_ids, sampling=LONG)))
    await asyncio.sleep(0.1)
    processes = psutil.Process().children(recursive=True)
    for process in processes:
        process.suspend()
    try:
        with pytest.raises(EngineTimeoutError):
            await late
    finally:
        for process in processes:
            process.resume()
    assert (await other)[0].is_whole
    assert backend.start() is engine and not engine.is_dead
    await eventually(lambda: not engine.llm.output_processor.get_num_unfinished_requests())
    await asyncio.to_thread(impatient.close)


@pytest.mark.engine
async def test_closing_one_user_of_an_engine_ends_its_calls_and_nobody_elses(backend, capital_ids):
    leaving = copy.deepcopy(backend)
    request = Request(capital_ids, sampling=LONG)
    calls = [
        asyncio.create_task(leaving.generate(request)),
        asyncio.create_task(asyncio.to_thread(leaving.run, leaving.generate(request))),
        asyncio.create_task(asyncio.to_thread(list, leaving.iterate(leaving.stream(request)))),
    ]
    other = asyncio.create_task(backend.generate(request))
    await asyncio.sleep(0.2)
    await asyncio.to_thread(leaving.close)
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in found] == [EngineClosedError] * 3
    with pytest.raises(EngineClosedError, match="is closed"):
        await leaving.generate(request)
    assert (await other)[0].is_whole


def errors_in_a_fork(*uses) -> list[str]:
    """What each use raises in a child forked from this process."""
    reading, writing = os.pipe()
    if not (child := os.fork()):
        for use in uses:
            try:
                use()
                os.write(writing, b"nothing\n")
            except BaseException as error:
                os.write(writing, f"{type(error).__name__}: {error}\n".encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as lines:
        errors = lines.read().splitlines()
    os.waitpid(child, 0)
    return errors


@pytest.mark.engine
def test_every_use_in_a_forked_child_is_an_error_at_once(backend, capital_ids):
    request = Request(capital_ids, sampling=GREEDY)
    errors = errors_in_a_fork(
        lambda: backend.run(backend.generate(request)),
        lambda: asyncio.run(backend.generate(request)),
        lambda: asyncio.run(backend.sleep()),
        backend.start,
        backend.close,
    )
    assert [error.partition(":")[0] for error in errors] == [EngineError.__name__] * 4 + ["nothing"]
    assert "forked" in errors[0]
    assert backend.run(backend.generate(request))


def run_program(backend: VLLMEngineBackend, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Unpickle a backend in another process, whose starts are interrupted, see `interrupted`."""
    program = Path(__file__).with_name("interrupted.py")
    return subprocess.run(
        [sys.executable, program, pickle.dumps(backend).hex(), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR"},
        cwd=Path(__file__).parents[3],
    )


@pytest.mark.engine
def test_nothing_is_left_of_a_start_that_fails():
    program = run_program(VLLMEngineBackend("smollm2", kv_cache_memory_bytes=1, **SMALL), "fail")
    assert program.returncode == 0, program.stderr
    assert "failed\n" in program.stdout


@pytest.mark.engine
def test_nothing_is_left_of_interrupted_starts_and_a_program_ends_in_silence():
    """With an open engine, which the end of a forked child has left alone."""
    program = run_program(VLLMEngineBackend("smollm2", **SMALL))
    assert program.returncode == 0, program.stderr
    assert re.findall("cancelled|interrupted|answered", program.stdout) == [
        "cancelled",
        "interrupted",
        "answered",
    ]
    assert program.stderr.rpartition("now the end\n")[2] == ""
