"""Every kind of fault of an engine, many times: a right answer or an error of ours, in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.conftest import eventually
from tests.faults.callers import CALLER_FAULTS, Caller
from tests.faults.campaign import (
    INJECTIONS,
    METHODS,
    Due,
    Table,
    all_outcomes,
    asked,
    echoed,
    ended,
    judged,
    seed_of,
    word_in,
    word_of,
)
from uq_llm_integrations import Request, ScriptedBackend, UncertaintyModel
from uq_llm_integrations.testing import ENGINE_FAULTS, EngineFault, FaultyBackend

pytestmark = pytest.mark.usefixtures("nothing_left")

WHERE = "lying engine"
HANGS = {"hangs before", "hangs during"}


class Echoing(ScriptedBackend):
    """Answers with the word that each prompt asks for."""

    def __init__(self) -> None:
        super().__init__(["unused"])

    def _next_line(self, prompt: str) -> str:
        return echoed(prompt)


async def outcomes(kind: str) -> Sequence[str]:
    faults: dict[str, EngineFault] = {}

    def plan(request: Request) -> EngineFault | None:
        return faults.get(word_in(bytes(request.prompt_ids).decode()))

    backend = FaultyBackend(Echoing(), plan)
    timeout = 0.5 if kind in HANGS else None
    model = UncertaintyModel(backend, methods=METHODS, timeout=timeout)
    truth = (await model.agenerate(f"Echo {word_of(seed_of('', '', 0))}")).scores[0]

    async def run(number: int) -> str:
        random = seed_of(WHERE, kind, number)
        word = word_of(random)
        if kind in ENGINE_FAULTS:
            faults[word] = ENGINE_FAULTS[kind](random)
            found = await ended(asked(model, word, streamed=number % 2 == 0))
            return judged(found, Due(echoed(word), truth))
        faults[word] = EngineFault("slow drip", token_delay=0.001)
        due = Due(echoed(word), truth)
        caller = Caller(backend, word, random, number % 2 == 0, due, len(due.text) + 1, 0.05)
        return await CALLER_FAULTS[kind](caller)

    found = await all_outcomes(run)
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    model.close()
    return found


@pytest.mark.parametrize("kind", [*ENGINE_FAULTS, *CALLER_FAULTS])
def test_it_ends_with_a_right_answer_or_an_error_of_ours(kind: str, table: Table) -> None:
    found = asyncio.run(outcomes(kind))
    assert len(found) == INJECTIONS
    table.add(WHERE, kind, found)
