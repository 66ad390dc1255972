"""One injection after the other: what is asked, what may come of it, and the table of that.

Each ends with the right answer, which is the one to the request's own word, or with an error of
this package. A score is the one of an undisturbed answer, or unknown with a reason.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from uq_llm_integrations import Result, Score, UncertaintyError, UncertaintyModel

INJECTIONS = int(os.environ.get("UQ_LLM_INJECTIONS", "4"))
"""Of each kind; `tox run -e campaign` makes 40."""

campaign_only = pytest.mark.skipif(
    INJECTIONS < 10, reason="takes long; `tox run -e campaign` runs it, with UQ_LLM_INJECTIONS=40"
)

LIMIT = 120.0
"""Seconds after which an injection counts as one that hangs, on however busy a machine."""

METHODS = ["perplexity", "entropy"]

RIGHT, UNKNOWN, EMPTY = "right answer", "right answer, score unknown", "empty answer, score unknown"
HEAD = """# What came of each fault

Each injection of a fault ends with the right answer, which is the one to the request's own word, or
with an error of this package, within its deadline; a score is the one of an undisturbed answer, or
None with a reason. Anything else fails the test, and so does a task, a thread, an open file, shared
memory or a process that is left behind. The numbers were written by the tests themselves
(`tests/faults`, `tox run -e campaign`). Injection `i` of a fault `F` at a place `P` is made by
`random.Random("P F i")`, and half of all requests are streamed.
"""

CANCELLED, OWN_ERROR = "cancelled", "the caller's own error"

Outcome = str


class Table:
    """How often each kind of fault had which outcome."""

    def __init__(self) -> None:
        self.counts: defaultdict[tuple[str, str], Counter[Outcome]] = defaultdict(Counter)

    def add(self, where: str, kind: str, outcomes: Iterable[Outcome]) -> None:
        self.counts[where, kind].update(outcomes)

    def markdown(self) -> str:
        lines = [HEAD]
        for where in sorted({where for where, _ in self.counts}):
            kinds = {kind: one for (at, kind), one in self.counts.items() if at == where}
            total = sum(one.total() for one in kinds.values())
            lines += [f"## {where}", "", f"{total} injections of {len(kinds)} kinds.", ""]
            lines += ["| fault | injections | what came of it |", "|---|---:|---|"]
            for kind, found in kinds.items():
                said = ", ".join(f"{name}: {count}" for name, count in found.most_common())
                lines.append(f"| {kind} | {found.total()} | {said} |")
            lines.append("")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write what these tests have counted, and keep what others have, as Markdown and JSON."""
        rows = json.loads(path.read_text()) if path.exists() else []
        mine = {where for where, _ in self.counts}
        for row in rows:
            if row["where"] not in mine:
                self.add(row["where"], row["fault"], Counter(row["outcomes"]).elements())
        rows = [
            {"where": where, "fault": kind, "outcomes": dict(found)}
            for (where, kind), found in sorted(self.counts.items())
        ]
        path.write_text(json.dumps(rows, indent=1) + "\n")
        path.with_suffix(".md").write_text(self.markdown())


def seed_of(where: str, kind: str, number: int) -> Random:
    return Random(f"{where} {kind} {number}")


def word_of(random: Random) -> str:
    """A word of its own for each request; all are of one length."""
    return f"word{random.getrandbits(64):016x}"


def word_in(text: str) -> str:
    """The word in the text of a prompt."""
    found = re.search("word[0-9a-f]{16}", text)
    return found[0] if found else ""


def echoed(prompt: str) -> str:
    """The answer of what is scripted; each token is a byte and has the same scores."""
    return f"{word_in(prompt)} it is."


@dataclass(frozen=True)
class Due:
    """What an undisturbed request is answered."""

    text: str
    scores: Mapping[str, Score]
    tolerance: float = 1e-6


async def asked(model: UncertaintyModel, word: str, *, streamed: bool) -> Result:
    if not streamed:
        return await model.agenerate(f"Echo {word}")
    pieces = [one async for one in model.astream([{"role": "user", "content": f"Echo {word}"}])]
    result = pieces[-1].result
    assert result is not None, "the stream ended without its last piece"
    assert "".join(one.part.content for one in pieces) == result.text
    return result


async def ended(running: Awaitable[Result]) -> Result | Outcome:
    """Return the result, or the name of an error of this package; fail where it hangs."""
    try:
        async with asyncio.timeout(LIMIT) as limit:
            return await running
    except TimeoutError:
        assert not limit.expired(), "it hangs"
        raise
    except UncertaintyError as error:
        assert str(error).strip()
        return type(error).__name__


def judged(found: Result | Outcome, due: Due) -> Outcome:
    """Return how an injection has ended; fail where it was in none of the ways that are allowed."""
    if isinstance(found, Outcome):
        return found
    scores = found.scores[0]
    if found.text == "":
        assert all(one.value is None and one.reason for one in scores.values()), scores
        return EMPTY
    assert found.text == due.text, f"{found.text!r} is given instead of {due.text!r}"
    for name, score in scores.items():
        known, truth = _value(score), _value(due.scores[name])
        assert score.reason or (known is not None and truth is not None), f"{name} says nothing"
        assert known is None or abs(known - truth) <= due.tolerance, (score, due.scores[name])
    unknown = any(_value(score) is None for score in scores.values())
    return UNKNOWN if unknown else RIGHT


def _value(score: Score) -> float | None:
    return score.value if score.value is not None else score.lower


async def all_outcomes(
    run: Callable[[int], Awaitable[Outcome]], *, together: bool = True
) -> Sequence[Outcome]:
    """Return the outcomes of all injections of a kind, which run at the same time or in turn."""
    if together:
        return await asyncio.gather(*map(run, range(INJECTIONS)))
    return [await run(number) for number in range(INJECTIONS)]
