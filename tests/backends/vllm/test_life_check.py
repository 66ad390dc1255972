"""Who hears what of an engine that dies, hangs or is slow, without an engine."""

import asyncio

import pytest

from uq_llm_integrations import EngineDeadError, EngineTimeoutError
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.vllm import life_check
from uq_llm_integrations.backends.vllm.process import ATTACH, EngineProcess


class FakeLLM:
    """An engine that answers while it is awake, and never gives what the probe kept."""

    def __init__(self) -> None:
        self.errored = False
        self.awake = asyncio.Event()
        self.awake.set()
        self.output_processor = self
        self.failed: list[Exception] = []

    async def is_sleeping(self) -> bool:
        await self.awake.wait()
        return False

    async def collective_rpc(self, method: str, args: tuple) -> list:
        if method == ATTACH:
            return [True]
        await asyncio.sleep(600)
        return []

    def propagate_error(self, error: Exception) -> None:
        self.failed.append(error)


@pytest.fixture
async def engine() -> EngineProcess:
    return EngineProcess(FakeLLM(), LoopThread(asyncio.get_running_loop()), None)


async def test_who_fetches_rows_of_a_worker_that_dies_hears_of_it(engine):
    fetching = [
        asyncio.create_task(engine.take(name, 600.0, bytes)) for name in ("first", "second")
    ]
    calling = asyncio.create_task(engine.call_worker("any", deadline=600.0))
    await asyncio.sleep(0.01)
    engine.llm.awake.clear()
    engine.llm.errored = True
    async with asyncio.timeout(60):
        found = await asyncio.gather(*fetching, calling, return_exceptions=True)
    assert [type(one) for one in found] == [EngineDeadError] * 3
    with pytest.raises(EngineDeadError):
        await engine.take("later", 600.0, bytes)


async def test_only_the_call_that_is_late_is_aborted(engine):
    engine.llm.awake.clear()
    patient = asyncio.create_task(engine.call_worker("any", deadline=600.0))
    with pytest.raises(EngineTimeoutError, match=r"no sign of life for 0\.01 seconds"):
        await engine.call_worker("any", deadline=0.01)
    assert engine.failure is None and not engine.llm.failed
    assert not patient.done()
    patient.cancel()


async def test_a_call_of_an_engine_that_answers_others_is_not_late(engine):
    call = asyncio.create_task(engine.call_worker("any", deadline=0.5))
    await asyncio.sleep(0.7)
    assert not call.done()
    call.cancel()


async def test_an_engine_that_answers_nobody_is_dead(engine, monkeypatch):
    monkeypatch.setattr(life_check, "LEAST_SILENCE", 0.1)
    engine._life.longest = 0.1
    engine.llm.awake.clear()
    with pytest.raises(EngineTimeoutError):
        await engine.call_worker("any", deadline=0.01)
    async with asyncio.timeout(60):
        while engine.failure is None:
            await asyncio.sleep(0.01)
    assert isinstance(engine.failure, EngineTimeoutError) and engine.llm.failed


async def test_a_start_that_may_take_long_lets_no_silent_engine_live_longer(engine, monkeypatch):
    monkeypatch.setattr(life_check, "LEAST_SILENCE", 0.1)
    engine._life.longest = 0.1
    assert await engine.sees_raw()
    engine.llm.awake.clear()
    with pytest.raises(EngineTimeoutError):
        await engine.call_worker("any", deadline=0.2)
    async with asyncio.timeout(60):
        while engine.failure is None:
            await asyncio.sleep(0.01)


async def test_a_dead_engine_leaves_no_task_that_waits_for_it(engine):
    before = asyncio.all_tasks()
    engine.forget_rows("cancelled")
    with pytest.raises(EngineDeadError):
        call = asyncio.create_task(engine.call_worker("any", deadline=600.0))
        await asyncio.sleep(0.01)
        engine.llm.errored = True
        await call
    engine.forget_rows("cancelled later")
    async with asyncio.timeout(10):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.01)
