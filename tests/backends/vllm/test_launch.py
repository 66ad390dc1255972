import multiprocessing
import os
import time

import pytest

from uq_llm_integrations import ConfigurationError, VLLMEngineBackend
from uq_llm_integrations.backends.vllm.launch import SpawnedProcesses, end_processes


def test_an_unknown_engine_argument_is_refused_before_anything_is_loaded():
    with pytest.raises(ConfigurationError, match="did you mean 'max_model_len'"):
        VLLMEngineBackend("org/name", max_model_length=100)


@pytest.mark.parametrize("arguments", [{}, {"model": "org/name", "engine": object()}])
def test_either_a_model_or_an_engine_is_needed(arguments):
    with pytest.raises(ConfigurationError, match="either"):
        VLLMEngineBackend(**arguments)


def test_something_else_than_an_engine_is_refused():
    with pytest.raises(ConfigurationError, match="AsyncLLM"):
        VLLMEngineBackend(engine="an engine")


def test_nobody_waits_for_a_process_for_whose_end_somebody_else_has_waited():
    spawned = SpawnedProcesses()
    spawned.add("an engine that has ended")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=os._exit, args=(0,), name="an engine that has ended")
    process.start()
    os.waitpid(process.pid, 0)
    assert process in multiprocessing.active_children()
    end_processes(0.1)
    spawned.end(lambda: True)


def test_the_processes_of_a_start_are_ended():
    spawned = SpawnedProcesses()
    spawned.add("an engine")
    context = multiprocessing.get_context("fork")
    process = context.Process(target=time.sleep, args=(600,), name="an engine")
    process.start()
    spawned.end(lambda: True)
    assert not process.is_alive()
