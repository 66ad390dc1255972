import asyncio
import threading

import pytest

from uq_llm_integrations.backends.event_loop import LoopThread


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
