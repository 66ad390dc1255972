"""Every kind of fault of an engine, many times: a right answer or an error of ours, in time."""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import eventually
from tests.faults.campaign import (
    INJECTIONS,
    METHODS,
    Table,
    all_outcomes,
    asked,
    echoed,
    outcome_of,
    seed_of,
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


async def outcomes(kind: str) -> list[str]:
    faults: dict[str, EngineFault] = {}

    def plan(request: Request) -> EngineFault | None:
        return faults.get(bytes(request.prompt_ids).decode().rpartition("Echo ")[2])

    backend = FaultyBackend(Echoing(), plan)
    timeout = 0.5 if kind in HANGS else None
    model = UncertaintyModel(backend, methods=METHODS, timeout=timeout)
    truth = (await model.agenerate(f"Echo {word_of(seed_of('', '', 0))}")).scores[0]

    async def run(number: int) -> str:
        random = seed_of(WHERE, kind, number)
        word = word_of(random)
        faults[word] = ENGINE_FAULTS[kind](random)
        return await outcome_of(asked(model, word, streamed=number % 2 == 0), word, truth)

    found = await all_outcomes(run)
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    model.close()
    return found


@pytest.mark.parametrize("kind", ENGINE_FAULTS)
def test_it_ends_with_a_right_answer_or_an_error_of_ours(kind: str, table: Table) -> None:
    found = asyncio.run(outcomes(kind))
    assert len(found) == INJECTIONS
    table.add(WHERE, kind, found)
