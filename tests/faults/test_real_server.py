"""A real server behind two that lie about what it says, and callers who leave it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack

import httpx
import pytest

from tests.conftest import eventually
from tests.faults.callers import CALLER_FAULTS, Caller
from tests.faults.campaign import (
    METHODS,
    Due,
    Outcome,
    Table,
    all_outcomes,
    asked,
    campaign_only,
    ended,
    judged,
    seed_of,
    word_of,
)
from tests.faults.relay import Relay
from tests.faults.test_server_faults import DIES, HANGS
from tests.vllm_server import VLLMServer
from uq_llm_integrations import UncertaintyModel, VLLMServerBackend
from uq_llm_integrations.testing import SERVER_FAULTS, Fault

pytestmark = [
    campaign_only,
    pytest.mark.engine,
    pytest.mark.usefixtures("exact_server", "nothing_left"),
]

WHERE = "real server"
MOST_TOKENS = 8
LIMITS = {"deadline": 6.0, "first_token_timeout": 5.0}
SAMPLING = {"temperature": 0, "max_tokens": MOST_TOKENS, "methods": METHODS}


class Campaign:
    """Injections of one kind into two relays before the real server, one backend and one model."""

    def __init__(self, kind: str, server: VLLMServer, stack: ExitStack) -> None:
        self.kind, self.faults = kind, dict[tuple[int, ...], list[Fault | None]]()
        self.relays = [stack.enter_context(Relay(server.url)) for _ in range(2)]
        for relay in self.relays:
            relay.plan = self.fault_of
        urls = [one.url for one in self.relays]
        limits = LIMITS if kind in HANGS or kind == "429" else {}
        k = 3 if "log-probabilities" in kind else 0
        options = {"top_logprobs": k, **SAMPLING}
        self.backend = stack.enter_context(VLLMServerBackend(urls, **limits))
        self.direct = stack.enter_context(VLLMServerBackend(server.url))
        self.model = UncertaintyModel(self.backend, **options)
        self.sound = UncertaintyModel(self.direct, **options)

    def fault_of(self, body: dict) -> Fault | None:
        tries = self.faults.get(tuple(body["prompt"])) or [None]
        return tries.pop(0) if len(tries) > 1 else tries[0]

    async def lie(self, number: int) -> Outcome:
        random, streamed = seed_of(WHERE, self.kind, number), number % 2 == 0
        word, fault = word_of(random), SERVER_FAULTS[self.kind](random)
        right = await asked(self.sound, word, streamed=streamed)
        lasts = random.random() < 0.5
        self.faults[right.candidate.prompt_ids] = [fault] if lasts else [fault, None]
        found = await ended(asked(self.model, word, streamed=streamed))
        if self.kind in DIES:
            for relay in self.relays:
                relay.restart()
        return judged(found, Due(right.text, right.scores[0], tolerance=1e-3))

    async def leave(self, number: int) -> Outcome:
        random, streamed = seed_of(WHERE, self.kind, number), number % 2 == 0
        word = word_of(random)
        right = await asked(self.sound, word, streamed=streamed)
        due = Due(right.text, right.scores[0], tolerance=1e-3)
        caller = Caller(self.backend, word, random, streamed, due, MOST_TOKENS, 2.0)
        return await CALLER_FAULTS[self.kind](caller)


@pytest.fixture(autouse=True)
def nothing_unfinished(exact_server: VLLMServer) -> Iterator[None]:
    """Fail where the server still works on what nobody waits for."""
    yield

    def is_idle() -> bool:
        lines = httpx.get(f"{exact_server.url}/metrics").text.splitlines()
        running = [one for one in lines if one.startswith("vllm:num_requests_running{")]
        return [one.rpartition(" ")[2] for one in running] == ["0.0"]

    asyncio.run(eventually(is_idle))


def outcomes(kind: str, server: VLLMServer, run: str) -> Sequence[Outcome]:
    with ExitStack() as stack:
        campaign = Campaign(kind, server, stack)
        each: Callable[[int], Awaitable[Outcome]] = getattr(campaign, run)
        return campaign.direct.run(all_outcomes(each, together=kind not in DIES))


@pytest.mark.parametrize("kind", SERVER_FAULTS)
def test_a_lie_ends_with_a_right_answer_or_an_error_of_ours(
    kind: str, exact_server: VLLMServer, table: Table
) -> None:
    table.add(WHERE, kind, outcomes(kind, exact_server, "lie"))


@pytest.mark.parametrize("kind", CALLER_FAULTS)
def test_who_leaves_disturbs_nobody(kind: str, exact_server: VLLMServer, table: Table) -> None:
    table.add(WHERE, kind, outcomes(kind, exact_server, "leave"))
