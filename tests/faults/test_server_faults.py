"""Every kind of fault of a server, many times: a right answer or an error of ours, in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from tests.conftest import eventually
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
from uq_llm_integrations import UncertaintyModel, VLLMServerBackend
from uq_llm_integrations.testing import SERVER_FAULTS, Fault, ScriptedServer

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("nothing_left")]

WHERE = "lying server"
HANGS = {"hangs before", "hangs during"}
DIES = {"dies before", "dies during", "dies after"}
SHORT = {"deadline": 1.0, "first_token_timeout": 0.5}
BUSY = {"deadline": 2.5}


class Campaign:
    """Injections of one kind into two servers, one backend and one model."""

    def __init__(self, kind: str, *, plugin: bool, stack: ExitStack) -> None:
        self.kind, self.where = kind, WHERE if plugin else f"{WHERE}, no plugin"
        self.faults: dict[str, list[Fault | None]] = {}
        """By the word of the request, what its tries get; the last is for all further ones."""
        self.servers = [
            stack.enter_context(ScriptedServer(echoed, plugin=plugin)) for _ in range(2)
        ]
        for server in self.servers:
            server.plan = self.fault_of
        limits = SHORT if kind in HANGS else BUSY if kind == "429" else {"deadline": 60.0}
        urls = [one.url for one in self.servers]
        self.backend = stack.enter_context(VLLMServerBackend(urls, **limits))
        k = 3 if "log-probabilities" in kind else 0
        self.model = UncertaintyModel(self.backend, methods=METHODS, top_logprobs=k)

    def fault_of(self, body: dict) -> Fault | None:
        prompt = body["prompt"]
        prompt = prompt if isinstance(prompt, str) else bytes(prompt).decode()
        tries = self.faults.get(word_in(prompt)) or [None]
        return tries.pop(0) if len(tries) > 1 else tries[0]

    async def outcomes(self) -> Sequence[str]:
        truth = (await self.model.agenerate(f"Echo {word_of(seed_of('', '', 0))}")).scores[0]

        async def run(number: int) -> str:
            random = seed_of(self.where, self.kind, number)
            word, fault = word_of(random), SERVER_FAULTS[self.kind](random)
            lasts = random.random() < 0.5
            self.faults[word] = [fault] if lasts else [fault, None]
            found = await ended(asked(self.model, word, streamed=number % 2 == 0))
            if self.kind in DIES:
                for server in self.servers:
                    await asyncio.to_thread(server.restart)
            return judged(found, Due(echoed(word), truth))

        found = await all_outcomes(run, together=self.kind not in DIES)
        await eventually(self.has_no_task_left)
        return found

    def has_no_task_left(self) -> bool:
        """Whether on the backend's loop only this is left, and what closes the connections."""
        return len(asyncio.all_tasks()) <= 2


@pytest.mark.parametrize("kind", SERVER_FAULTS)
def test_it_ends_with_a_right_answer_or_an_error_of_ours(kind: str, table: Table) -> None:
    for plugin in (True, False):
        with ExitStack() as stack:
            campaign = Campaign(kind, plugin=plugin, stack=stack)
            found = campaign.backend.run(campaign.outcomes())
        assert len(found) == INJECTIONS
        table.add(campaign.where, kind, found)
