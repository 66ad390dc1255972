"""An engine whose processes are killed, or stand still, again and again while callers wait."""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Sequence
from contextlib import suppress

import psutil
import pytest

from tests.faults.campaign import (
    INJECTIONS,
    METHODS,
    Due,
    Outcome,
    Table,
    asked,
    campaign_only,
    ended,
    judged,
    seed_of,
    word_of,
)
from uq_llm_integrations import EngineTimeoutError, UncertaintyModel, VLLMEngineBackend

pytestmark = [campaign_only, pytest.mark.engine, pytest.mark.usefixtures("nothing_left")]

WHERE = "real engine that dies"
CALLERS = 10
MOST_TOKENS = 8

DEATHS = {
    "the worker is killed, as for want of memory": ("Worker", signal.SIGKILL),
    "the engine's core is killed": ("EngineCore", signal.SIGKILL),
    "the worker stands still for ever": ("Worker", signal.SIGSTOP),
}


async def answered_again(model: UncertaintyModel) -> None:
    """Wait for an engine that answers; who is first may be told that the one before is silent."""
    with suppress(EngineTimeoutError):
        await asked(model, word_of(seed_of(WHERE, "first", 0)), streamed=False)


async def one_death(model: UncertaintyModel, kind: str, first: int) -> Sequence[Outcome]:
    """Let half of the callers be under way when it dies, while the others come at that time."""
    words = [word_of(seed_of(WHERE, kind, first + one)) for one in range(CALLERS)]
    await answered_again(model)
    due = [await asked(model, word, streamed=one % 2 == 0) for one, word in enumerate(words)]

    async def answered(one: int) -> Outcome:
        found = await ended(asked(model, words[one], streamed=one % 2 == 0))
        return judged(found, Due(due[one].text, due[one].scores[0], tolerance=1e-3))

    early = [asyncio.ensure_future(answered(one)) for one in range(CALLERS // 2)]
    await asyncio.sleep(seed_of(WHERE, kind, first).uniform(0.0, 1.0))
    name, number = DEATHS[kind]
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one of the engine before, killed and not yet reaped
            if name in " ".join(process.cmdline()):
                process.send_signal(number)
    late = [asyncio.ensure_future(answered(one)) for one in range(CALLERS // 2, CALLERS)]
    return await asyncio.gather(*early, *late)


@pytest.mark.parametrize("kind", DEATHS)
def test_all_who_wait_are_told_and_the_next_have_a_fresh_engine(kind: str, table: Table) -> None:
    rounds = math.ceil(INJECTIONS / CALLERS)
    arguments = {"enforce_eager": True, "max_model_len": 512, "max_num_seqs": 16}
    backend = VLLMEngineBackend("smollm2", deadline=5.0, restart_engine=rounds, **arguments)
    with backend:
        model = UncertaintyModel(backend, methods=METHODS, temperature=0, max_tokens=MOST_TOKENS)
        for number in range(rounds):
            table.add(WHERE, kind, asyncio.run(one_death(model, kind, number * CALLERS)))
