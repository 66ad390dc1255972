"""Who shares an engine and who ends it, and what errors become, without an engine."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from vllm.exceptions import MaxQueuedTokensError, QueueOverflowError

from uq_llm_integrations import (
    EngineBusyError,
    EngineDeadError,
    EngineError,
    EngineLostError,
    EngineStartError,
    EngineTimeoutError,
    InvalidRequestError,
)
from uq_llm_integrations.backends.vllm import pool as pooling
from uq_llm_integrations.backends.vllm.process import translated_errors

ARGUMENTS = {"model": "org/name"}


class FakeLLM:
    """An engine that is at once ready, and remembers whether it was shut down."""

    errored = False
    engine_core = SimpleNamespace(resources=SimpleNamespace(engine_manager=None))

    def __init__(self) -> None:
        self.was_shut_down = threading.Event()

    async def collective_rpc(self, method: str, args: tuple) -> list:
        return [True]

    def shutdown(self, timeout: float) -> None:
        self.was_shut_down.set()


class Starts:
    """Stands in for vLLM's start, which blocks the loop until it may go on."""

    def __init__(self) -> None:
        self.llms: list[FakeLLM] = []
        self.may_go_on = threading.Event()
        self.error: Exception | None = None

    def __call__(self, arguments, spawned) -> tuple[FakeLLM, None]:
        self.llms.append(FakeLLM())
        assert self.may_go_on.wait(10)
        if self.error:
            raise self.error
        return self.llms[-1], None


@pytest.fixture
def starts(monkeypatch) -> Starts:
    starts = Starts()
    monkeypatch.setattr(pooling, "start_async_llm", starts)
    return starts


def nothing() -> None:
    pass


def test_all_who_wait_share_one_start_and_the_last_ends_the_engine(starts):
    pool = pooling.EnginePool()
    waiters = [pool.reserve(ARGUMENTS, nothing) for _ in range(2)]
    starts.may_go_on.set()
    first, second = (waiter.result(10) for waiter in waiters)
    assert first is second and len(starts.llms) == 1
    pool.release(first)
    assert not starts.llms[0].was_shut_down.is_set()
    pool.release(second)
    assert starts.llms[0].was_shut_down.wait(10)


def test_a_start_goes_on_for_those_who_still_wait(starts):
    pool = pooling.EnginePool()
    leaving, staying = (pool.reserve(ARGUMENTS, nothing) for _ in range(2))
    pool.give_up(leaving)
    starts.may_go_on.set()
    engine = staying.result(10)
    pool.release(engine)
    assert starts.llms[0].was_shut_down.wait(10), "the one who left is no user"


async def test_a_start_that_nobody_waits_for_ends_and_the_next_one_is_fresh(starts):
    pool = pooling.EnginePool()
    task = asyncio.create_task(pool.aacquire(ARGUMENTS, nothing))
    while not starts.llms:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    starts.may_go_on.set()
    assert await asyncio.to_thread(starts.llms[0].was_shut_down.wait, 10)
    engine = await pool.aacquire(ARGUMENTS, nothing)
    assert engine.llm is starts.llms[1]
    await asyncio.to_thread(pool.release, engine)


def test_an_engine_that_came_too_late_is_given_back(starts):
    pool = pooling.EnginePool()
    starts.may_go_on.set()
    waiter = pool.reserve(ARGUMENTS, nothing)
    waiter.result(10)
    pool.give_up(waiter)
    assert starts.llms[0].was_shut_down.wait(10)


def test_all_who_wait_get_the_error_of_a_start_that_fails(starts):
    pool = pooling.EnginePool()
    starts.error = EngineStartError("no memory")
    starts.may_go_on.set()
    for _ in range(2):
        with pytest.raises(EngineStartError, match="no memory"):
            pool.acquire(ARGUMENTS, nothing)
    assert len(starts.llms) == 2


def test_an_engine_of_other_arguments_starts_beside_it(starts):
    pool = pooling.EnginePool()
    starts.may_go_on.set()
    engines = [pool.acquire({"model": name}, nothing) for name in ("a", "b")]
    assert engines[0] is not engines[1]
    for engine in engines:
        pool.release(engine)


def test_a_dead_engine_is_replaced_on_its_own_loop(starts):
    pool = pooling.EnginePool()
    starts.may_go_on.set()
    dead = pool.acquire(ARGUMENTS, nothing)
    dead.failure = EngineTimeoutError("no sign of life")
    assert dead.is_dead
    fresh = pool.acquire(ARGUMENTS, nothing)
    assert fresh is not dead and fresh.loop is dead.loop
    pool.release(dead)
    assert fresh.loop.run(asyncio.sleep(0, "still there")) == "still there"
    pool.release(fresh)


def test_a_dead_engine_is_replaced_as_often_as_is_allowed(starts):
    pool = pooling.EnginePool()
    starts.may_go_on.set()
    engine = pool.acquire(ARGUMENTS, nothing)
    for allowed in (1, 2):
        assert pool.lost(ARGUMENTS, allowed - 1) is None
        engine.failure = EngineTimeoutError("no sign of life")
        for _ in range(2):
            with pytest.raises(EngineLostError, match=r"no sign of life; .*restart_engine is"):
                pool.acquire(ARGUMENTS, nothing, allowed - 1)
        fresh = pool.acquire(ARGUMENTS, nothing, allowed)
        pool.release(engine)
        engine = fresh
    engine.failure = EngineTimeoutError("no sign of life")
    assert isinstance(pool.lost(ARGUMENTS, 2), EngineLostError)
    pool.release(engine)
    assert pool.lost(ARGUMENTS, 0) is None, "once it is closed, the count begins anew"
    assert len(starts.llms) == 3


class SilentError(Exception):
    """An error without a message, as vLLM's EngineGenerateError is."""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (EngineDeadError("gone"), EngineDeadError, "gone"),
        (EngineTimeoutError("silent"), EngineTimeoutError, "silent"),
        (caused(SilentError(), EngineTimeoutError("silent")), EngineTimeoutError, "silent"),
        (caused(SilentError(), RuntimeError("deep")), EngineError, "vLLM failed: deep"),
        (SilentError(), EngineError, "vLLM failed: SilentError"),
        (ValueError(), InvalidRequestError, "vLLM refuses the request: ValueError"),
        (TimeoutError(), EngineTimeoutError, "did not answer"),
        (InvalidRequestError("mine"), InvalidRequestError, "mine"),
        (QueueOverflowError(), EngineBusyError, "cannot accept new requests"),
        (MaxQueuedTokensError(), EngineBusyError, "backlog limit"),
    ],
)
def test_an_error_keeps_its_kind_and_always_says_something(raised, kind, message):
    with pytest.raises(kind, match=message) as found, translated_errors():
        raise raised
    assert type(found.value) is kind


def test_each_who_waits_gets_an_error_of_its_own():
    failure = EngineTimeoutError("no sign of life")
    with pytest.raises(EngineTimeoutError) as found, translated_errors():
        raise failure
    assert found.value is not failure and found.value.__cause__ is failure
