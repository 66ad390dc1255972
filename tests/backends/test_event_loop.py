import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.streams import closed_at_end


@pytest.fixture
def loop():
    loop = LoopThread()
    yield loop
    loop.stop()


async def numbers(closed: threading.Event):
    try:
        for number in range(5):
            yield number
    finally:
        closed.set()


def test_a_blocking_call_returns_the_value(loop):
    assert loop.run(asyncio.sleep(0, "done")) == "done"


async def test_cancelling_the_caller_cancels_the_work(loop):
    cancelled = threading.Event()

    async def work():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    task = asyncio.create_task(loop.arun(work()))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(cancelled.wait, 5)


def test_a_stream_left_early_is_closed(loop):
    closed = threading.Event()
    stream = loop.iterate(numbers(closed))
    assert next(stream) == 0
    stream.close()
    assert closed.is_set()


async def test_a_stream_can_be_read_from_another_loop(loop):
    closed = threading.Event()
    assert [number async for number in loop.aiterate(numbers(closed))] == [0, 1, 2, 3, 4]
    assert closed.is_set()


async def test_a_stream_whose_reader_is_cancelled_ends_in_its_own_time(loop):
    begun, ended = threading.Event(), threading.Event()

    async def numbers():
        try:
            yield 0
            begun.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.set()

    async def read():
        async for _ in loop.aiterate(numbers()):
            pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


def test_streams_within_streams_end_in_silence_with_their_loop(loop):
    """The loop closes all that it knows of at once, in no order."""
    said, closed = [], []
    loop.loop.set_exception_handler(lambda loop, context: said.append(context["message"]))

    async def inner():
        try:
            yield 0
        finally:
            await asyncio.sleep(0.01)
            closed.append(True)

    async def outer():
        async with closed_at_end(loop.aiterate(inner())) as pieces:
            async for piece in pieces:
                yield piece

    left = [loop.iterate(outer()) for _ in range(20)]
    assert [next(stream) for stream in left] == [0] * 20
    loop.stop()
    assert (said, len(closed)) == ([], 20)


@pytest.fixture
def heard_ctrl_c() -> Iterator[None]:
    """Jobs in the background ignore it otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_ctrl_c")
def test_ctrl_c_cancels_the_coroutine_and_waits_until_it_has_ended(loop):
    started, ended = threading.Event(), threading.Event()

    async def work():
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            ended.set()

    def interrupt():
        started.wait()
        time.sleep(0.1)  # by then the caller blocks
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        loop.run(work())
    assert ended.is_set()


def test_a_blocking_call_on_the_loop_itself_is_refused(loop):
    async def nested():
        loop.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="would wait for itself"):
        loop.run(nested())


def test_stopping_cancels_what_runs(loop):
    cancelled = threading.Event()

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    future = asyncio.run_coroutine_threadsafe(work(), loop.loop)
    loop.run(asyncio.sleep(0))
    loop.stop()
    assert cancelled.is_set() and future.cancelled()


def test_a_loop_that_nothing_refers_to_ends_its_thread():
    before = set(threading.enumerate())
    loop = LoopThread()
    (thread,) = set(threading.enumerate()) - before
    del loop
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )


FORKED = """
import asyncio, os, sys
from uq_llm_integrations import EngineError, Request, ScriptedBackend

backend = ScriptedBackend(["yes"])
backend.run(backend.generate(Request((65,))))
child = os.fork()
if not child:
    code = 1
    for call in (
        lambda: backend.run(backend.generate(Request((65,)))),
        lambda: list(backend.iterate(backend.stream(Request((65,))))),
        lambda: asyncio.run(backend.loop.arun(backend.generate(Request((65,))))),
    ):
        try:
            call()
            os._exit(2)
        except EngineError as error:
            code = 0 if "backend of its own" in str(error) else 3
    os._exit(code)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_gets_an_error_at_once():
    done = run_python(FORKED)
    assert (done.returncode, done.stderr) == (0, "")


EXITING = """
import asyncio, threading
from uq_llm_integrations.backends.event_loop import LoopThread

started = threading.Event()

async def numbers():
    started.set()
    while True:
        yield await asyncio.sleep(60, 1)

async def work():
    async for number in numbers():
        pass

loop = LoopThread()
asyncio.run_coroutine_threadsafe(work(), loop.loop)
started.wait()
"""


def test_the_interpreter_ends_silently_with_an_open_loop():
    done = run_python(EXITING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
