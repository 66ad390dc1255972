"""Generation and inspection that alternate."""

import asyncio
from functools import partial

import pytest

from uq_llm_integrations import EngineError
from uq_llm_integrations.backends.phase_lock import Phase, PhaseLock


class Recorder:
    """A lock whose switches are recorded, and workers that work until they are released.

    `fails` has the names of switches that raise.
    """

    def __init__(self, **arguments) -> None:
        self.events: list[str] = []
        self.fails: set[str] = set()
        to_inspection, to_generation = partial(self.switch, "sleep"), partial(self.switch, "wake")
        self.lock = PhaseLock(to_inspection, to_generation, **arguments)
        self.released: dict[str, asyncio.Event] = {}

    async def switch(self, name: str) -> None:
        self.events.append(name)
        if name in self.fails:
            raise EngineError(f"cannot {name}")

    async def start(self, *names: str) -> list[asyncio.Task]:
        """Start workers one after the other; names in capitals inspect, the others generate."""
        tasks = [asyncio.create_task(self._work(name)) for name in names]
        await settle()
        return tasks

    async def finish(self, *names: str) -> None:
        for name in names:
            self.released[name].set()
        await settle()

    async def _work(self, name: str) -> None:
        self.released[name] = asyncio.Event()
        async with self.lock.hold(Phase.INSPECTION if name.isupper() else Phase.GENERATION):
            self.events.append(name)
            await self.released[name].wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_many_generate_together_and_many_inspect_together():
    recorder = Recorder()
    await recorder.start("a", "b", "A", "B")
    assert recorder.events == ["a", "b"]
    await recorder.finish("a", "b")
    assert recorder.events == ["a", "b", "sleep", "A", "B"]
    await recorder.finish("A", "B")
    assert recorder.events[-1] == "wake"


async def test_new_generation_waits_for_an_inspection_that_waits_for_generation():
    recorder = Recorder()
    await recorder.start("a", "A", "b")
    assert recorder.events == ["a"]
    await recorder.finish("a", "A")
    assert recorder.events == ["a", "sleep", "A", "wake", "b"]


async def test_while_no_generation_waits_any_number_of_inspections_may_join():
    recorder = Recorder(latecomers=1)
    await recorder.start("A", "B", "C")
    await recorder.start("D", "E", "F")
    assert recorder.events == ["sleep", *"ABCDEF"]


async def test_generation_that_waits_lets_only_some_latecomers_go_first():
    """The others wait for the next switch, before which the generation that waits is done."""
    recorder = Recorder(latecomers=2)
    await recorder.start("A")
    await recorder.start("a", "B", "C", "D", "b")
    assert recorder.events == ["sleep", "A", "B", "C"]
    await recorder.finish("A", "B", "C")
    assert recorder.events == ["sleep", "A", "B", "C", "wake", "a", "b"]
    await recorder.finish("a", "b")
    assert recorder.events[-2:] == ["sleep", "D"]


async def test_one_cancelled_while_it_waits_holds_up_nobody():
    recorder = Recorder()
    _, inspection, _ = await recorder.start("a", "A", "b")
    inspection.cancel()
    await settle()
    assert recorder.events == ["a", "b"]
    _, generation = await recorder.start("A", "c")
    await recorder.finish("a", "b")
    generation.cancel()
    await recorder.finish("A")
    assert recorder.events == ["a", "b", "sleep", "A", "wake"]


async def test_one_cancelled_during_the_switch_holds_up_nobody():
    recorder = Recorder()
    _, inspection = await recorder.start("a", "A")
    recorder.released["a"].set()
    while "sleep" not in recorder.events:
        await asyncio.sleep(0)
    inspection.cancel()
    await settle()
    assert recorder.events[:2] == ["a", "sleep"] and recorder.events[-1] == "wake"
    await recorder.start("b")
    assert recorder.events[-1] == "b"


async def test_a_switch_under_way_can_be_waited_for():
    recorder, woken = Recorder(), asyncio.Event()
    lock = PhaseLock(partial(recorder.switch, "sleep"), woken.wait)
    await lock.wait_for_switch()
    async with lock.hold(Phase.INSPECTION):
        pass
    assert lock.is_switching
    waiting = asyncio.create_task(lock.wait_for_switch())
    await settle()
    assert not waiting.done()
    woken.set()
    await waiting
    assert not lock.is_switching


async def test_where_the_switch_to_inspection_fails_those_that_wait_raise_and_generation_goes_on():
    recorder = Recorder()
    recorder.fails = {"sleep"}
    _, *inspections = await recorder.start("a", "A", "B", "b")
    await recorder.finish("a")
    for inspection in inspections[:2]:
        with pytest.raises(EngineError, match="cannot sleep"):
            await inspection
    assert recorder.events == ["a", "sleep", "wake", "b"]


async def test_where_the_switch_to_generation_fails_the_next_generation_tries_it_again():
    recorder = Recorder()
    recorder.fails = {"wake"}
    _, first = await recorder.start("A", "a")
    await recorder.finish("A")
    with pytest.raises(EngineError, match="cannot wake"):
        await first
    await recorder.start("B")
    await recorder.finish("B")
    assert recorder.events == ["sleep", "A", "wake", "B"]
    recorder.fails = set()
    await recorder.start("b")
    assert recorder.events == ["sleep", "A", "wake", "B", "wake", "b"]
