"""Half an hour of mixed work, behind which memory, file handles and threads are what they were.

Callers of `VLLMServerBackend` ask a scripted server in a process of its own, by HTTP: whole answers
and streams, through `UncertaintyModel` and through both frameworks' classes; streams that are left
behind their first piece, calls that are cancelled, servers that close, reset, answer with errors or
with nonsense, and models that are made and closed. Each request has a word of its own, which its
answer has to be; what fails on purpose ends in an error of this package.

The process is measured between rounds, when nothing is under way. The first quarter of the time is
for caches to fill. Of what is measured after that, the least of the last third may be no more than
3% above the least of the first third: idle connections come and go, and a leak adds to all.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

import psutil

from benchmarks.echoing import echoing_server
from benchmarks.report import conclude, write_table
from uq_llm_integrations import (
    ChatVLLMUncertainty,
    UncertaintyError,
    UncertaintyModel,
    VLLMServerBackend,
)
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM

SECONDS = 1800
PAUSE = 0.5
"""Seconds between rounds, to leave other work on the machine its share."""

WARM = 0.25
"""The share of the time that is for caches to fill."""

FLAT = 1.03
"""How many times of the early figure the late one may be."""

FAULTS = "closes during", "resets before", "4xx", "5xx", "invalid JSON", "NaN rows", "no token ids"

Sample = dict[str, float]
Work = Callable[[], Awaitable[None]]

_numbers = itertools.count()


class Callers:
    """What is done in each round, and what came of it."""

    def __init__(self, url: str) -> None:
        self.url, self.outcomes = url, Counter[str]()
        self.model = UncertaintyModel(VLLMServerBackend(url), max_retries=0)
        self.faulty = UncertaintyModel(VLLMServerBackend(url), max_retries=0)
        self.chat = ChatVLLMUncertainty(backend=self.model.backend)
        self.llm = VLLMUncertaintyLLM(backend=self.model.backend)

    async def round(self) -> None:
        """Do everything at once."""
        work = [
            *[self.whole] * 8,
            *[self.stream] * 8,
            *[self.left] * 4,
            *[self.cancelled] * 4,
            *[self.of_langchain] * 2,
            *[self.of_llama_index] * 2,
            self.fresh,
            *(partial(self.failing, kind) for kind in FAULTS),
        ]
        await asyncio.gather(*map(self.counted, work))

    async def counted(self, work: Work) -> None:
        """Do one thing; an error that is not due is a lost answer."""
        try:
            await work()
        except UncertaintyError as error:
            print(f"  lost: {error!r}", flush=True)
            self.outcomes["lost"] += 1

    async def whole(self, model: UncertaintyModel | None = None) -> None:
        """Ask for a whole answer."""
        word = new_word()
        result = await (model or self.model).agenerate(f"Say {word}")
        self.note(word, result.text)

    async def stream(self) -> None:
        """Ask for a stream."""
        word = new_word()
        pieces = [one async for one in self.model.astream(f"Say {word}")]
        self.note(word, "".join(one.part.content for one in pieces))

    async def left(self) -> None:
        """Leave a stream behind its first piece."""
        async with aclosing(self.model.astream(f"Say {new_word()}")) as pieces:
            await anext(pieces)
        self.outcomes["left"] += 1

    async def cancelled(self) -> None:
        """Cancel a call at some time."""
        call = asyncio.ensure_future(self.model.agenerate(f"fault slow drip: Say {new_word()}"))
        await asyncio.sleep(next(_numbers) % 7 / 1000)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        self.outcomes["cancelled"] += 1

    async def of_langchain(self) -> None:
        """Ask through LangChain's class."""
        word = new_word()
        self.note(word, (await self.chat.ainvoke(f"Say {word}")).content)

    async def of_llama_index(self) -> None:
        """Ask through LlamaIndex's class."""
        word = new_word()
        self.note(word, (await self.llm.acomplete(f"Say {word}")).text)

    async def fresh(self) -> None:
        """Ask a model that is made for that, and closed."""
        async with UncertaintyModel(VLLMServerBackend(self.url)) as model:
            await self.whole(model)

    async def failing(self, kind: str) -> None:
        """Ask a server that fails."""
        word = new_word()
        try:
            result = await self.faulty.agenerate(f"fault {kind}: Say {word}")
        except UncertaintyError:
            self.outcomes["refused"] += 1
        else:
            self.note(word, result.text)

    def note(self, word: str, answer: object) -> None:
        """Count an answer."""
        self.outcomes["right" if answer == word else "crossed"] += 1

    def close(self) -> None:
        """Close the models."""
        self.model.close()
        self.faulty.close()


def new_word() -> str:
    """Return a word that no other request has."""
    return f"word{next(_numbers):010d}"


def measured(process: psutil.Process) -> Sample:
    """Return what the process holds."""
    gc.collect()
    return {
        "memory, MiB": process.memory_info().rss / 2**20,
        "handles": process.num_fds(),
        "threads": threading.active_count(),
    }


async def soak(callers: Callers, seconds: float) -> list[Sample]:
    """Return what the process held after each round."""
    process, samples, ends = psutil.Process(), [], time.monotonic() + seconds
    while time.monotonic() < ends:
        await callers.round()
        samples.append(measured(process))
        if len(samples) % 100 == 1:
            print(dict(callers.outcomes), samples[-1], flush=True)
        await asyncio.sleep(PAUSE)
    return samples


def early_and_late(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Return the least of a figure just after the caches are full, and that at the end."""
    values = [one[name] for one in samples[int(len(samples) * WARM) :]]
    third = len(values) // 3
    return min(values[:third]), min(values[-third:])


def main() -> None:
    """Work, measure, write the table and conclude."""
    with echoing_server() as url:
        callers = Callers(url)
        samples = asyncio.run(soak(callers, SECONDS))
        callers.close()
    kept = {name: early_and_late(samples, name) for name in samples[0]}
    rows = [
        [name, *(f"{one:.1f}" for one in (*ends, max(sample[name] for sample in samples)))]
        for name, ends in kept.items()
    ]
    write_table("soak", ["of the process", "early", "late", "highest"], rows)
    write_table("soak outcomes", ["outcome", "calls"], callers.outcomes.most_common())
    bad = callers.outcomes["crossed"] + callers.outcomes["lost"]
    goals = {f"{name}: early / late": (1 / FLAT, a / b) for name, (a, b) in kept.items()}
    figures = {"seconds": SECONDS, "outcomes": callers.outcomes, "samples": samples[::20]}
    conclude("soak", figures, {**goals, "neither lost nor crossed": (1.0, float(not bad))})


if __name__ == "__main__":
    main()
