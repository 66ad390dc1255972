"""The real engine: its answers become lies, its callers leave, the program around it fails."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import psutil
import pytest

from tests.backends.vllm.test_lifetime import errors_in_a_fork
from tests.conftest import eventually
from tests.faults.callers import CALLER_FAULTS, Caller, OwnError
from tests.faults.campaign import (
    INJECTIONS,
    METHODS,
    OWN_ERROR,
    Due,
    Outcome,
    Table,
    all_outcomes,
    asked,
    campaign_only,
    ended,
    judged,
    seed_of,
    word_in,
    word_of,
)
from uq_llm_integrations import Request, UncertaintyModel, VLLMEngineBackend
from uq_llm_integrations.testing import ENGINE_FAULTS, EngineFault, FaultyBackend, jumping_clock

pytestmark = [
    campaign_only,
    pytest.mark.engine,
    pytest.mark.usefixtures("used_before", "nothing_left"),
]

WHERE = "real engine"
HANGS = {"hangs before", "hangs during"}
MOST_TOKENS = 8

# Its token is one like any other here, where tokens are no bytes: nobody can see that lie.
LIES = [kind for kind in ENGINE_FAULTS if kind != "broken UTF-8"]


@pytest.fixture(scope="module")
def used_before(backend: VLLMEngineBackend) -> None:
    """What the first calls start stays: threads and their handles."""
    model = UncertaintyModel(backend, methods=METHODS, max_tokens=2)
    asyncio.run(asyncio.wait_for(_all(model), 300))


async def _all(model: UncertaintyModel) -> None:
    await asyncio.gather(*(asked(model, "word", streamed=one % 2 == 0) for one in range(40)))


@pytest.fixture(autouse=True)
def nothing_unfinished(backend: VLLMEngineBackend) -> Iterator[None]:
    """Fail where the engine still works on what nobody waits for."""
    yield
    output = backend.start().llm.output_processor
    asyncio.run(eventually(lambda: output.get_num_unfinished_requests() == 0))


class Engine:
    """The real engine, whose answers get the faults that are planned for their words, once each."""

    def __init__(self, backend: VLLMEngineBackend, **options: object) -> None:
        self.backend = backend
        self.faults: dict[str, EngineFault] = {}
        decode: Callable[..., str] = backend.start().llm.get_tokenizer().decode

        def plan(request: Request) -> EngineFault | None:
            return self.faults.pop(word_in(decode(request.prompt_ids)), None)

        own = {"temperature": 0, "max_tokens": MOST_TOKENS, "methods": METHODS}
        self.faulty = UncertaintyModel(FaultyBackend(backend, plan), **own | options)
        self.sound = UncertaintyModel(backend, **own)

    async def due(self, word: str, *, streamed: bool) -> Due:
        found = await asked(self.sound, word, streamed=streamed)
        return Due(found.text, found.scores[0], tolerance=1e-3)

    async def answered(self, word: str, *, streamed: bool) -> Outcome:
        """Return what has come of a request; what is due is asked for after it."""
        found = await ended(asked(self.faulty, word, streamed=streamed))
        return judged(found, await self.due(word, streamed=streamed))


@pytest.mark.parametrize("kind", LIES)
def test_a_lie_ends_with_a_right_answer_or_an_error_of_ours(
    kind: str, backend: VLLMEngineBackend, table: Table
) -> None:
    engine = Engine(backend, timeout=2.0 if kind in HANGS else None)

    async def run(number: int) -> Outcome:
        random = seed_of(WHERE, kind, number)
        word = word_of(random)
        engine.faults[word] = ENGINE_FAULTS[kind](random)
        return await engine.answered(word, streamed=number % 2 == 0)

    table.add(WHERE, kind, asyncio.run(all_outcomes(run)))


@pytest.mark.parametrize("kind", CALLER_FAULTS)
def test_who_leaves_disturbs_nobody(kind: str, backend: VLLMEngineBackend, table: Table) -> None:
    engine = Engine(backend)

    async def run(number: int) -> Outcome:
        random, streamed = seed_of(WHERE, kind, number), number % 2 == 0
        word = word_of(random)
        due = await engine.due(word, streamed=streamed)
        return await CALLER_FAULTS[kind](
            Caller(backend, word, random, streamed, due, MOST_TOKENS, 2.0)
        )

    table.add(WHERE, kind, asyncio.run(all_outcomes(run)))


def all_at_once(engine: Engine, kind: str, befall: Callable[[], None]) -> Sequence[Outcome]:
    """Let something befall all requests that are under way."""

    async def run(number: int) -> Outcome:
        return await engine.answered(
            word_of(seed_of(WHERE, kind, number)), streamed=number % 2 == 0
        )

    async def outcomes() -> Sequence[Outcome]:
        running = asyncio.ensure_future(all_outcomes(run))
        for _ in range(8):
            await asyncio.sleep(0.2)
            befall()
        return await running

    return asyncio.run(outcomes())


def test_a_clock_that_jumps_takes_no_engine_for_dead(
    backend: VLLMEngineBackend, table: Table
) -> None:
    kind = "the engine's clock jumps"
    with jumping_clock(backend.loop.loop) as jump:
        table.add(WHERE, kind, all_at_once(Engine(backend), kind, lambda: jump(3600.0)))
    assert not backend.start().is_dead


def test_an_engine_that_stands_still_for_a_moment_goes_on(
    backend: VLLMEngineBackend, table: Table
) -> None:
    kind = "the engine's processes stand still for a moment"
    processes = [one for one in psutil.Process().children(recursive=True)]

    def stand_still() -> None:
        for one in processes:
            one.suspend()
        for one in processes:
            one.resume()

    table.add(WHERE, kind, all_at_once(Engine(backend), kind, stand_still))


def test_a_fork_may_not_use_the_engine_and_harms_it_not(
    backend: VLLMEngineBackend, table: Table
) -> None:
    kind, model = "the program is forked", UncertaintyModel(backend, max_tokens=2)

    async def sound() -> Outcome:
        return await Engine(backend).answered(word_of(seed_of(WHERE, kind, 0)), streamed=True)

    outcomes = [
        error.partition(":")[0]
        for _ in range(INJECTIONS)
        for error in errors_in_a_fork(lambda: model.generate("?"))
    ]
    assert asyncio.run(sound()) == "right answer"
    table.add(WHERE, kind, outcomes)
    assert set(outcomes) == {"EngineError"} and len(outcomes) == INJECTIONS


def test_a_signal_ends_a_blocking_call_with_what_its_handler_raises(
    backend: VLLMEngineBackend, table: Table
) -> None:
    kind, engine, outcomes = "a signal's handler raises", Engine(backend), []

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise OwnError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(INJECTIONS):
            random = seed_of(WHERE, kind, number)
            word = word_of(random)
            due = asyncio.run(engine.due(word, streamed=False))
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.01, 1.0))
            try:
                found = judged(engine.sound.generate(f"Echo {word}"), due)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except OwnError:
                found = OWN_ERROR
            outcomes.append(found)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    table.add(WHERE, kind, outcomes)
