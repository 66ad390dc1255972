"""Work by day and work by night."""

import asyncio

from uq_llm_integrations.backends.turns import Turns


class Diary:
    """Turns whose changes are noted, and workers that work until they are let go."""

    def __init__(self, **arguments) -> None:
        self.notes: list[str] = []
        self.turns = Turns(self._dusk, self._dawn, **arguments)
        self._let_go: dict[str, asyncio.Event] = {}

    async def _dusk(self) -> None:
        self.notes.append("dusk")

    async def _dawn(self) -> None:
        self.notes.append("dawn")

    async def come(self, *names: str) -> list[asyncio.Task]:
        """Let workers come one after the other; names in capitals work by night."""
        tasks = [asyncio.create_task(self._work(name)) for name in names]
        await settle()
        return tasks

    async def leave(self, *names: str) -> None:
        for name in names:
            self._let_go[name].set()
        await settle()

    async def _work(self, name: str) -> None:
        self._let_go[name] = asyncio.Event()
        async with self.turns.by_night() if name.isupper() else self.turns.by_day():
            self.notes.append(name)
            await self._let_go[name].wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_many_work_together_by_day_and_by_night():
    diary = Diary()
    await diary.come("a", "b", "A", "B")
    assert diary.notes == ["a", "b"]
    await diary.leave("a", "b")
    assert diary.notes == ["a", "b", "dusk", "A", "B"]
    await diary.leave("A", "B")
    assert diary.notes[-1] == "dawn"


async def test_newcomers_of_the_day_wait_for_the_night_that_waits_for_the_day():
    diary = Diary()
    await diary.come("a", "A", "b")
    assert diary.notes == ["a"]
    await diary.leave("a", "A")
    assert diary.notes == ["a", "dusk", "A", "dawn", "b"]


async def test_while_nobody_waits_for_the_day_all_may_come_by_night():
    diary = Diary(latecomers=1)
    await diary.come("A", "B", "C")
    await diary.come("D", "E", "F")
    assert diary.notes == ["dusk", *"ABCDEF"]


async def test_who_waits_for_the_day_lets_only_some_latecomers_go_before():
    """The others wait for the next night, before which the day's work is done."""
    diary = Diary(latecomers=2)
    await diary.come("A")
    await diary.come("a", "B", "C", "D", "b")
    assert diary.notes == ["dusk", "A", "B", "C"]
    await diary.leave("A", "B", "C")
    assert diary.notes == ["dusk", "A", "B", "C", "dawn", "a", "b"]
    await diary.leave("a", "b")
    assert diary.notes[-2:] == ["dusk", "D"]


async def test_who_is_cancelled_while_waiting_holds_up_nobody():
    diary = Diary()
    _, night, _ = await diary.come("a", "A", "b")
    night.cancel()
    await settle()
    assert diary.notes == ["a", "b"]
    _, day = await diary.come("A", "c")
    await diary.leave("a", "b")
    day.cancel()
    await diary.leave("A")
    assert diary.notes == ["a", "b", "dusk", "A", "dawn"]


async def test_who_is_cancelled_at_the_very_moment_of_the_change_holds_up_nobody():
    diary = Diary()
    _, night = await diary.come("a", "A")
    diary._let_go["a"].set()
    while "dusk" not in diary.notes:
        await asyncio.sleep(0)
    night.cancel()
    await settle()
    assert diary.notes[:2] == ["a", "dusk"] and diary.notes[-1] == "dawn"
    await diary.come("b")
    assert diary.notes[-1] == "b"


async def test_closing_can_wait_for_the_change_that_is_under_way():
    diary, broken = Diary(), asyncio.Event()
    turns = Turns(diary._dusk, broken.wait)
    await turns.settled()
    async with turns.by_night():
        pass
    assert turns.is_changing
    waiting = asyncio.create_task(turns.settled())
    await settle()
    assert not waiting.done()
    broken.set()
    await waiting
    assert not turns.is_changing
