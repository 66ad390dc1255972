"""`close()` while others are calling, and after it; streams that are closed while they are read."""

import asyncio
import gc
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from llama_index.core.llms import ChatMessage

import uq_llm_integrations as uq
from tests.conftest import eventually
from uq_llm_integrations import langchain, llama_index
from uq_llm_integrations.backends.work_thread import WorkThread

MESSAGES = [ChatMessage(content="?")]

BLOCKING: dict[str, Callable[[uq.Backend], Any]] = {
    "generate": lambda backend: uq.UncertaintyModel(backend).generate("?"),
    "generate_all": lambda backend: uq.UncertaintyModel(backend).generate_all(["?", "!"]),
    "chat": lambda backend: uq.UncertaintyModel(backend).chat("?"),
    "stream": lambda backend: list(uq.UncertaintyModel(backend).stream("?")),
    "backend": lambda backend: backend.run(backend.generate(uq.Request((65,)))),
    "backend's stream": lambda backend: list(backend.iterate(backend.stream(uq.Request((65,))))),
    "steps": lambda backend: list(uq.VLLMStepGenerator(backend).stream("?")),
    "retried": lambda backend: uq.UncertaintyModel(backend, max_retries=3).generate("?"),
    "invoke": lambda backend: langchain.ChatVLLMUncertainty(backend=backend).invoke("?"),
    "batch": lambda backend: langchain.ChatVLLMUncertainty(backend=backend).batch(["?", "!"]),
    "LangChain's stream": lambda backend: list(
        langchain.ChatVLLMUncertainty(backend=backend).stream("?")
    ),
    "text": lambda backend: langchain.VLLMUncertaintyLLM(backend=backend).invoke("?"),
    "complete": lambda backend: llama_index.VLLMUncertaintyLLM(backend=backend).complete("?"),
    "stream_chat": lambda backend: list(
        llama_index.VLLMUncertaintyLLM(backend=backend).stream_chat(MESSAGES)
    ),
}


async def read(stream: Any) -> list[Any]:
    return [piece async for piece in stream]


async def read_when_there(stream: Any) -> list[Any]:
    return await read(await stream)


ASYNC: dict[str, Callable[[uq.Backend], Any]] = {
    "agenerate": lambda backend: uq.UncertaintyModel(backend).agenerate("?"),
    "astream": lambda backend: read(uq.UncertaintyModel(backend).astream("?")),
    "backend": lambda backend: backend.generate(uq.Request((65,))),
    "backend's stream": lambda backend: read(backend.stream(uq.Request((65,)))),
    "ainvoke": lambda backend: langchain.ChatVLLMUncertainty(backend=backend).ainvoke("?"),
    "abatch": lambda backend: langchain.ChatVLLMUncertainty(backend=backend).abatch(["?"]),
    "LangChain's astream": lambda backend: read(
        langchain.ChatVLLMUncertainty(backend=backend).astream("?")
    ),
    "acomplete": lambda backend: llama_index.VLLMUncertaintyLLM(backend=backend).acomplete("?"),
    "astream_chat": lambda backend: read_when_there(
        llama_index.VLLMUncertaintyLLM(backend=backend).astream_chat(MESSAGES)
    ),
}


def slow() -> uq.ScriptedBackend:
    return uq.ScriptedBackend(["Paris"], delay=600)


@pytest.mark.parametrize("call", BLOCKING.values(), ids=BLOCKING)
async def test_a_blocking_call_ends_with_our_error_when_it_is_closed(call):
    backend = slow()
    calling = asyncio.create_task(asyncio.to_thread(call, backend))
    await eventually(lambda: bool(backend.requests))
    await asyncio.to_thread(backend.close)
    with pytest.raises(uq.EngineClosedError, match="was closed while"):
        await calling
    with pytest.raises(uq.EngineClosedError, match="is closed"):
        await asyncio.to_thread(call, backend)


@pytest.mark.parametrize("call", ASYNC.values(), ids=ASYNC)
async def test_an_async_call_ends_with_our_error_when_it_is_closed(call):
    backend = slow()
    calling = asyncio.create_task(call(backend))
    await eventually(lambda: bool(backend.requests))
    backend.close()
    with pytest.raises(uq.EngineClosedError, match="was closed while"):
        await calling
    backend.close()
    with pytest.raises(uq.EngineClosedError, match="is closed"):
        await call(backend)


def held() -> tuple[set[threading.Thread], int]:
    """The threads of this process, and how many handles it has."""
    return set(threading.enumerate()), len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "collected"])
async def test_a_backend_gives_back_its_threads_and_handles(is_closed):
    gc.collect()
    before = held()
    backend = uq.ScriptedBackend(["Paris"])
    stream = backend.iterate(backend.stream(uq.Request((65,))))
    next(stream)
    assert held() != before
    if is_closed:
        backend.close()
    del backend, stream

    def is_given_back() -> bool:
        gc.collect()
        threads, handles = held()
        return threads <= before[0] and handles <= before[1]

    await eventually(is_given_back)


def test_a_threads_jobs_are_done_in_order_and_it_ends_when_nobody_has_it():
    before = set(threading.enumerate())
    worker = WorkThread("of the test")
    jobs = [worker.submit(partial(str, number)) for number in range(3)]
    failing = worker.submit(partial(int, "x"))
    assert [job.result() for job in jobs] == ["0", "1", "2"]
    assert isinstance(failing.exception(), ValueError)
    (thread,) = set(threading.enumerate()) - before
    del worker
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


async def test_both_sides_of_a_hybrid_backend_end_their_calls():
    hybrid = uq.HybridBackend(generator := slow(), uq.ScriptedBackend([""]))
    calling = asyncio.create_task(hybrid.generate(uq.Request((65,))))
    await eventually(lambda: bool(generator.requests))
    await asyncio.to_thread(hybrid.close)
    with pytest.raises(uq.EngineClosedError):
        await calling
    with pytest.raises(uq.EngineClosedError):
        await hybrid.score((65,), (66,))


def test_a_callback_may_close_what_calls_it():
    chat = langchain.ChatVLLMUncertainty(backend=uq.ScriptedBackend(["Paris"]))
    pieces = chat.stream("?")
    next(pieces)
    chat.close()
    with pytest.raises(uq.EngineClosedError):
        list(pieces)


def test_what_runs_on_the_backends_own_loop_may_close_it():
    backend = uq.ScriptedBackend(["Paris"])

    async def work() -> None:
        backend.close()
        await backend.generate(uq.Request((65,)))

    with pytest.raises(uq.EngineClosedError):
        backend.run(work())


async def test_a_call_that_others_cancelled_stays_cancelled():
    backend = slow()
    calling = asyncio.create_task(backend.generate(uq.Request((65,))))
    await eventually(lambda: bool(backend.requests))
    backend.close()
    calling.cancel()
    with pytest.raises((asyncio.CancelledError, uq.EngineClosedError)):
        await calling


class Endless(uq.ScriptedBackend):
    """Its stream never has a second piece, and takes its time to end."""

    def __init__(self) -> None:
        super().__init__(["Paris"])
        self.begun, self.ended = threading.Event(), threading.Event()

    async def _endless(self):
        try:
            async for piece in super().stream(uq.Request((65,))):
                yield piece
                self.begun.set()
                await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.01)
            self.ended.set()

    def stream(self, request):
        return self.loop.aiterate(self._endless())


STREAMS = {name: ASYNC[name] for name in ("astream", "LangChain's astream", "astream_chat")}


@pytest.mark.parametrize("call", STREAMS.values(), ids=STREAMS)
async def test_a_reader_that_is_cancelled_hears_of_the_cancellation_and_the_work_ends(call):
    backend = Endless()
    reading = asyncio.create_task(call(backend))
    await asyncio.to_thread(backend.begun.wait, 60)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await asyncio.to_thread(backend.ended.wait, 60)


async def test_a_stream_is_closed_while_another_task_reads_it():
    backend = Endless()
    stream = uq.UncertaintyModel(backend).astream("?")
    reading = asyncio.create_task(read(stream))
    await asyncio.to_thread(backend.begun.wait, 60)
    await stream.aclose()
    assert len(await reading) == 1
    assert backend.ended.is_set()


def test_a_program_may_end_within_a_stream(caplog):
    """At the end of an event loop, all generators are closed at the same time."""
    backend = Endless()
    held = []

    async def program() -> None:
        held.append(uq.UncertaintyModel(backend).astream("?"))
        await anext(held[0])

    asyncio.run(program())
    assert backend.ended.is_set()
    assert not [one for one in caplog.records if "generator" in one.message]
