"""What callers do to a backend that works: they leave, hurry, or ask for what cannot be."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from random import Random

from tests.faults.campaign import CANCELLED, METHODS, OWN_ERROR, Due, Outcome, asked, ended, judged
from uq_llm_integrations import Request, UncertaintyError, UncertaintyModel
from uq_llm_integrations.backends.base import Backend


@dataclass(frozen=True)
class Caller:
    """One of them, with its own word, and how much the backend says, in about which time."""

    backend: Backend
    word: str
    random: Random
    streamed: bool
    due: Due
    most_tokens: int
    seconds: float

    def model(self, backend: Backend | None = None, **options: object) -> UncertaintyModel:
        own = {"temperature": 0, "max_tokens": self.most_tokens, "methods": METHODS}
        return UncertaintyModel(backend or self.backend, **own | options)

    async def judged(self, model: UncertaintyModel) -> Outcome:
        return judged(await ended(asked(model, self.word, streamed=self.streamed)), self.due)

    def moment(self) -> float:
        return self.random.uniform(0.0, self.seconds)


class OwnError(Exception):
    """What a caller's own code raises."""


async def _cancels(caller: Caller) -> Outcome:
    task = asyncio.ensure_future(caller.judged(caller.model()))
    await asyncio.sleep(caller.moment())
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return CANCELLED


async def _closes_a_stream(caller: Caller) -> Outcome:
    last, text = caller.random.randrange(caller.most_tokens), ""
    stream = caller.model().astream([{"role": "user", "content": f"Echo {caller.word}"}])
    async with aclosing(stream):
        number = 0
        async for piece in stream:
            text += piece.part.content
            number += 1
            if number > last:
                break
    if caller.streamed:  # else what is due is the answer to another prompt
        assert caller.due.text.startswith(text)
    return CANCELLED


async def _has_no_patience(caller: Caller) -> Outcome:
    return await caller.judged(caller.model(timeout=caller.moment() + 1e-3))


async def _closes_the_backend(caller: Caller) -> Outcome:
    leaving = copy.copy(caller.backend)
    task = asyncio.ensure_future(caller.judged(caller.model(leaving)))
    await asyncio.sleep(caller.moment())
    await asyncio.to_thread(leaving.close)
    return await task


async def _raises(caller: Caller) -> Outcome:
    """Its callback raises at a token."""
    left = caller.random.randrange(caller.most_tokens // 2)

    def until(text: str) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            raise OwnError
        return False

    ids = await caller.backend.encode(f"Echo {caller.word}")
    sampling = {"temperature": 0, "max_tokens": caller.most_tokens}
    try:
        await caller.backend.generate(Request(ids, sampling=sampling, until=until))
    except OwnError:
        return OWN_ERROR
    except UncertaintyError as error:
        return type(error).__name__
    raise AssertionError("the callback's error was lost")


async def _asks_for_what_cannot_be(caller: Caller) -> Outcome:
    wrong = caller.random.choice(IMPOSSIBLE)
    try:
        found = await ended(asked(caller.model(sampling=wrong), caller.word, streamed=False))
    except UncertaintyError as error:
        return type(error).__name__
    assert isinstance(found, Outcome), f"{wrong} was answered"
    return found


IMPOSSIBLE: list[dict[str, object]] = [
    {"stop_token_ids": [10**9]},
    {"top_p": -1.0},
    {"top_k": "many"},
    {"min_p": 2.0},
    {"repetition_penalty": float("nan")},
    {"seed": 2**70},
    {"logit_bias": {10**9: 1.0}},
    {"presence_penalty": float("inf")},
    {"min_tokens": 10**6},
    {"no_such_parameter": 1},
]

CALLER_FAULTS: Mapping[str, Callable[[Caller], Awaitable[Outcome]]] = {
    "the caller cancels the call": _cancels,
    "the caller closes the stream at a token": _closes_a_stream,
    "the caller's timeout ends": _has_no_patience,
    "the caller closes its backend": _closes_the_backend,
    "the caller's callback raises at a token": _raises,
    "the caller asks for what cannot be": _asks_for_what_cannot_be,
}
