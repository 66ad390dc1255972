"""Ten thousand requests, some hundreds at once: which were lost or crossed, and how late they came.

Each request has a word of its own, and its answer has to be that word: one that is another's is
crossed, and one that does not come is lost. `UncertaintyModel`, which encodes a prompt by a request
of its own and scores the answer, `VLLMServerBackend`, which makes a trace of it, and the bare
`openai` client call the same server, by HTTP, in turns of a thousand requests: a busy machine's bad
moments come upon all of them. The server is a scripted one in a process of its own.

Of the real engine, inside this process, each request's grammar allows its own word alone. A server
and an engine compute on the same cores as the callers.

Times are those of one call, in milliseconds: the median and the 99th percentile.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.bare_vllm import engine_args
from benchmarks.echoing import echoing_server
from benchmarks.report import conclude, write_table
from uq_llm_integrations import Request, UncertaintyModel, VLLMEngineBackend, VLLMServerBackend

REQUESTS, TURN = 10_000, 1000
CONCURRENCY = 1, 64, 512
ENGINE_REQUESTS, ENGINE_CONCURRENCY = 500, 64
SECONDS = 600.0
"""To connect in: a client that gets little of a busy machine thinks that a server is away."""

Call = Callable[[str], Awaitable[str]]
"""What asks for a word, and returns the answer."""

_numbers = itertools.count()


@dataclass
class Calls:
    """What came of the calls of one client: outcomes, and the seconds of each call."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def milliseconds(self, percentile: float) -> float:
        """Return a percentile of the time of a call."""
        return float(np.percentile(self.seconds, percentile)) * 1000

    def row(self) -> list[str]:
        """Return the cells of a table."""
        counts = [str(self.outcomes.total()), str(self.outcomes["lost"])]
        times = [f"{self.milliseconds(one):.1f}" for one in (50, 99)]
        return [*counts, str(self.outcomes["crossed"]), *times]

    async def make(self, call: Call, words: Iterator[str]) -> None:
        """Call for one word after the other."""
        for word in words:
            started = time.perf_counter()
            self.outcomes[await outcome_of(call, word)] += 1
            self.seconds.append(time.perf_counter() - started)


async def outcome_of(call: Call, word: str) -> str:
    """Return whether the answer to a call is right, crossed or lost."""
    try:
        answer = await call(word)
    except Exception as error:
        print(f"  lost: {error!r}", flush=True)
        return "lost"
    return "right" if answer == word else "crossed"


def words(count: int) -> Iterator[str]:
    """Yield words that no other request has."""
    return (f"word{next(_numbers):08d}" for _ in range(count))


async def at_once(calls: Calls, call: Call, count: int, callers: int) -> None:
    """Make so many calls, with so many callers that share the words."""
    due = words(count)
    await asyncio.gather(*(calls.make(call, due) for _ in range(callers)))


async def by_turns(clients: Mapping[str, Call], callers: int) -> dict[str, Calls]:
    """Let the clients make all their requests, a thousand at a time."""
    found = {name: Calls() for name in clients}
    for call in clients.values():
        await call("first")  # the first contact
    for _ in range(REQUESTS // TURN):
        for name, call in clients.items():
            await at_once(found[name], call, TURN, callers)
    return found


async def server_calls(url: str) -> dict[tuple[str, int], Calls]:
    """Return what came of the calls of all clients, by how many called at once."""
    from openai import AsyncOpenAI

    bare = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=SECONDS)
    backend = VLLMServerBackend(url, connect_timeout=SECONDS)
    async with bare, UncertaintyModel(backend) as model:
        clients = {
            "`UncertaintyModel`": lambda word: scored(model, word),
            "`VLLMServerBackend`": lambda word: traced(backend, word),
            "`openai`": lambda word: plain(bare, word),
        }
        found: dict[tuple[str, int], Calls] = {}
        for callers in CONCURRENCY:
            for name, calls in (await by_turns(clients, callers)).items():
                found[name, callers] = calls
                print(name, callers, *calls.row(), flush=True)
    return found


async def scored(model: UncertaintyModel, word: str, **options: Any) -> str:
    """Return the answer of the model, which has to have all scores."""
    result = await model.agenerate(prompt_of(word), **options)
    assert result.scores[0] and all(one.is_known for one in result.scores[0].values())
    return result.text


async def traced(backend: Any, word: str) -> str:
    """Return the answer of the backend, which has to have an exact trace."""
    (candidate,) = await backend.generate(Request(tuple(prompt_of(word).encode())))
    assert candidate.trace.is_exact and len(candidate.trace) == len(word) + 1
    return str(candidate.text)


async def plain(client: Any, word: str) -> str:
    """Return the answer of the official client."""
    body = {"extra_body": {"return_token_ids": True, "uncertainty": False}, "max_tokens": 256}
    prompt = [*prompt_of(word).encode()]
    answer = await client.completions.create(model="scripted", prompt=prompt, **body)
    return str(answer.choices[0].text)


def prompt_of(word: str) -> str:
    """Return the prompt for a word."""
    return f"Say {word}"


def engine_calls() -> Calls:
    """Return what came of the calls of the real engine."""
    calls = Calls()
    with UncertaintyModel(VLLMEngineBackend(**engine_args(enforce_eager=True))) as model:

        def call(word: str) -> Awaitable[str]:
            return scored(model, word, structured_outputs={"choice": [word]}, max_tokens=32)

        asyncio.run(at_once(calls, call, ENGINE_REQUESTS, ENGINE_CONCURRENCY))
    return calls


def main() -> None:
    """Measure and conclude."""
    with echoing_server() as url:
        found = asyncio.run(server_calls(url))
    found["`UncertaintyModel`, real engine", ENGINE_CONCURRENCY] = engine_calls()
    report(found)


def report(found: Mapping[tuple[str, int], Calls]) -> None:
    """Write the table of all clients, by how many called at once, and conclude."""
    heads = ["client", "callers", "requests", "lost", "crossed", "median, ms", "99%, ms"]
    write_table("load", heads, [[name, at, *one.row()] for (name, at), one in found.items()])
    figures = {f"{name}, {at} callers": summary(one) for (name, at), one in found.items()}
    outcomes = sum((one.outcomes for one in found.values()), Counter[str]())
    conclude("load", figures, {"right answers": (outcomes.total(), outcomes["right"])})


def summary(calls: Calls) -> dict[str, Any]:
    """Return outcomes and percentiles."""
    times = {f"p{one}, ms": calls.milliseconds(one) for one in (50, 90, 99, 99.9)}
    return {**calls.outcomes, **times}


if __name__ == "__main__":
    main()
