"""One injection after the other: what is asked, what may come of it, and the table of that.

Each ends with the right answer, which echoes the request's own word, or with an error of this
package. A score is the one of an undisturbed answer, or unknown with a reason.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from random import Random

from uq_llm_integrations import Result, Score, UncertaintyError, UncertaintyModel

INJECTIONS = int(os.environ.get("UQ_LLM_INJECTIONS", "4"))
"""Of each kind; `tox run -e campaign` makes 40."""

LIMIT = 120.0
"""Seconds after which an injection counts as one that hangs, on however busy a machine."""

METHODS = ["perplexity", "entropy"]

RIGHT, UNKNOWN, EMPTY = "right answer", "right answer, score unknown", "empty answer, score unknown"

Outcome = str


class Table:
    """How often each kind of fault had which outcome."""

    def __init__(self) -> None:
        self.counts: defaultdict[tuple[str, str], Counter[Outcome]] = defaultdict(Counter)

    def add(self, where: str, kind: str, outcomes: Iterable[Outcome]) -> None:
        self.counts[where, kind].update(outcomes)

    def markdown(self) -> str:
        lines = ["| where | fault | injections | outcomes |", "|---|---|---:|---|"]
        for (where, kind), found in sorted(self.counts.items()):
            said = ", ".join(f"{name}: {count}" for name, count in found.most_common())
            lines.append(f"| {where} | {kind} | {found.total()} | {said} |")
        kinds, total = len(self.counts), sum(one.total() for one in self.counts.values())
        return "\n".join([*lines, "", f"{total} injections of {kinds} kinds."]) + "\n"

    def write(self, path: Path) -> None:
        """Write it as Markdown, and beside it as JSON."""
        path.with_suffix(".md").write_text(self.markdown())
        rows = [
            {"where": where, "fault": kind, "outcomes": dict(found)}
            for (where, kind), found in sorted(self.counts.items())
        ]
        path.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


def seed_of(where: str, kind: str, number: int) -> Random:
    return Random(f"{where} {kind} {number}")


def word_of(random: Random) -> str:
    """A word of its own for each request; all are of one length, and so have the same scores."""
    return f"word{random.getrandbits(64):016x}"


def echoed(prompt: str) -> str:
    """The answer to a prompt."""
    return f"{prompt.rpartition('Echo ')[2]} it is."


async def asked(model: UncertaintyModel, word: str, *, streamed: bool) -> Result:
    if not streamed:
        return await model.agenerate(f"Echo {word}")
    pieces = [one async for one in model.astream([{"role": "user", "content": f"Echo {word}"}])]
    result = pieces[-1].result
    assert result is not None, "the stream ended without its last piece"
    assert "".join(one.part.content for one in pieces) == result.text
    return result


async def outcome_of(running: Awaitable[Result], word: str, truth: Mapping[str, Score]) -> Outcome:
    """Return how an injection has ended; fail where it was in none of the ways that are allowed."""
    try:
        async with asyncio.timeout(LIMIT) as limit:
            result = await running
    except TimeoutError:
        assert not limit.expired(), "it hangs"
        raise
    except UncertaintyError as error:
        assert str(error).strip()
        return type(error).__name__
    return judged(result, word, truth)


def judged(result: Result, word: str, truth: Mapping[str, Score]) -> Outcome:
    scores = result.scores[0]
    if result.text == "":
        assert all(one.value is None and one.reason for one in scores.values()), scores
        return EMPTY
    assert result.text == echoed(f"Echo {word}"), f"{result.text!r} answers another request"
    for name, score in scores.items():
        known = score.value if score.value is not None else score.lower
        due = truth[name].value if score.value is not None else truth[name].lower
        assert score.reason or (known is not None and due is not None), f"{name} says nothing"
        assert known is None or abs(known - due) < 1e-6, f"{score} should be {truth[name]}"
    unknown = any(not one.is_known and one.lower is None for one in scores.values())
    return UNKNOWN if unknown else RIGHT


async def all_outcomes(
    run: Callable[[int], Awaitable[Outcome]], *, together: bool = True
) -> list[Outcome]:
    """Return the outcomes of all injections of a kind, which run at the same time or in turn."""
    if together:
        return await asyncio.gather(*map(run, range(INJECTIONS)))
    return [await run(number) for number in range(INJECTIONS)]
