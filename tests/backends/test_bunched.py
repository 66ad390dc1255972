"""Pieces of a stream that are there at the same time come together, in their order."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from uq_llm_integrations.backends.streams import bunched

WAIT, FAIL = "wait", "fail"


async def numbers(*steps: object, closed: list[str] | None = None) -> AsyncIterator[object]:
    """Yield numbers; a step may wait before that, or fail."""
    try:
        for step in steps:
            if step == WAIT:
                await asyncio.sleep(0.01)
            elif step == FAIL:
                raise RuntimeError("it failed")
            else:
                yield step
    finally:
        if closed is not None:
            closed.append("closed")


async def test_what_is_there_comes_together_and_the_rest_later():
    found = [bunch async for bunch in bunched(numbers(1, 2, 3, WAIT, 4, WAIT, 5, 6))]
    assert found == [[1, 2, 3], [4], [5, 6]]


async def test_no_more_come_together_than_are_allowed():
    assert [bunch async for bunch in bunched(numbers(*range(7)), most=3)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]


async def test_a_stream_without_pieces_ends():
    assert [bunch async for bunch in bunched(numbers(WAIT))] == []


async def test_a_failure_comes_behind_the_pieces_before_it():
    found = []
    with pytest.raises(RuntimeError, match="it failed"):
        async for bunch in bunched(numbers(1, 2, FAIL)):
            found.append(bunch)
    assert found == [[1, 2]]


async def test_closing_it_ends_the_step_ahead_and_the_stream():
    closed: list[str] = []
    bunches = bunched(numbers(1, WAIT, 2, closed=closed))
    assert await anext(bunches) == [1]
    await bunches.aclose()
    assert closed == ["closed"] and len(asyncio.all_tasks()) == 1


async def test_cancelling_its_reader_ends_the_stream():
    closed: list[str] = []

    async def read() -> None:
        async for _ in bunched(numbers(*[WAIT] * 1000, closed=closed)):
            pass

    task = asyncio.ensure_future(read())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == ["closed"] and len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("turns", range(8))
async def test_cancelling_its_reader_at_any_turn_of_the_loop_leaves_no_step_behind(turns):
    async def stalling() -> AsyncIterator[int]:
        yield 1
        yield 2
        await asyncio.sleep(60)

    async def read() -> None:
        async for _ in bunched(stalling()):
            pass

    task = asyncio.ensure_future(read())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(task, return_exceptions=True)
    assert len(asyncio.all_tasks()) == 1
