"""A program that answers once, says so, and ends in the way that it is told, with all open.

Its arguments: the class it asks through, the backend below, and how it ends.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uq_llm_integrations as uq

ENGINE = {"enforce_eager": True, "max_model_len": 512}
LONG = {"max_tokens": 400}

BACKENDS: dict[str, Callable[[], uq.Backend]] = {
    "scripted": lambda: uq.ScriptedBackend(["Paris"]),
    "huggingface": lambda: uq.HuggingFaceBackend("smollm2"),
    "vllm": lambda: uq.VLLMEngineBackend("smollm2", **ENGINE),
    "hybrid": lambda: uq.HybridBackend(
        uq.VLLMEngineBackend("smollm2", **ENGINE), uq.HuggingFaceBackend("smollm2")
    ),
}


class Bare:
    def __init__(self, backend: uq.Backend) -> None:
        model = uq.UncertaintyModel(backend, max_tokens=4)
        self.ask, self.aask, self.stream, self.astream = (
            model.generate,
            model.agenerate,
            model.stream,
            model.astream,
        )


class LangChain:
    def __init__(self, backend: uq.Backend) -> None:
        from uq_llm_integrations.langchain import ChatVLLMUncertainty

        chat = ChatVLLMUncertainty(backend=backend, max_tokens=4)
        self.ask, self.aask, self.stream, self.astream = (
            chat.invoke,
            chat.ainvoke,
            chat.stream,
            chat.astream,
        )


class LlamaIndex:
    def __init__(self, backend: uq.Backend) -> None:
        from uq_llm_integrations.llama_index import VLLMUncertaintyLLM

        llm = VLLMUncertaintyLLM(backend=backend, max_tokens=4)
        self.ask, self.aask, self.stream = llm.complete, llm.acomplete, llm.stream_complete
        self._llm = llm

    async def astream(self, prompt: str) -> Any:
        async for piece in await self._llm.astream_complete(prompt):
            yield piece


FACES = {"bare": Bare, "langchain": LangChain, "llama_index": LlamaIndex}


def heed_signals() -> None:
    """Have signals end this program where whoever started it ignores them, as nohup does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for sent in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sent, signal.SIG_DFL)


def begin_the_end() -> None:
    """Tell who watches that from now on this program ends."""
    sys.stderr.write("now the end\n")
    sys.stdout.write("open\n")
    sys.stdout.flush()


def end(face: Any) -> None:
    begin_the_end()


def fail(face: Any) -> None:
    begin_the_end()
    raise RuntimeError("the program failed")


def leave(face: Any) -> None:
    begin_the_end()
    sys.exit(3)


def fail_in_a_thread(face: Any) -> None:
    thread = threading.Thread(target=fail, args=(face,))
    thread.start()
    thread.join()


def leave_in_asyncio(face: Any) -> None:
    """Within a stream, while another task asks."""

    async def program() -> None:
        asking = asyncio.create_task(face.aask("?"))
        face.open = face.astream("?")
        await anext(face.open)
        leave(asking)

    asyncio.run(program())


def fail_within_a_stream(face: Any) -> None:
    face.open = face.stream("?")
    next(face.open)
    fail(face)


def fail_in_a_call(face: Any) -> None:
    try:
        face.ask(None)
    except Exception as error:
        face.error = error  # its traceback holds all that took part
        begin_the_end()
        raise RuntimeError("the program failed") from error


def vanish(face: Any) -> None:
    begin_the_end()
    os._exit(5)


def stay(face: Any) -> None:
    begin_the_end()
    time.sleep(600)


def keep_asking(face: Any) -> None:
    begin_the_end()
    while True:
        face.ask("?", **LONG)


def answer(name: str, kind: str) -> Any:
    face = FACES[name](BACKENDS[kind]())
    face.ask("?")
    return face


def start_only(name: str, kind: str) -> Any:
    """Leave an engine in the midst of its start."""
    import psutil

    backend = BACKENDS[kind]()

    def start() -> None:
        with suppress(uq.EngineStartError):  # the program's end interrupts it
            backend.start()

    threading.Thread(target=start, daemon=True).start()
    while len(psutil.Process().children()) < 2:  # the other is Python's resource tracker
        time.sleep(0.05)
    return FACES[name](backend)


if __name__ == "__main__":
    heed_signals()
    name, kind, way = sys.argv[1:]
    face = (start_only if way == "fail_at_the_start" else answer)(name, kind)
    globals()["fail" if way == "fail_at_the_start" else way](face)
