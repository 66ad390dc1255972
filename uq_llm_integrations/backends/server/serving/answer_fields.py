"""The fields that clients see: what is in a response about each of its tokens."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from uq_llm_integrations.backends.server.serving.counters import Metrics
from uq_llm_integrations.backends.server.serving.marks import VERSION
from uq_llm_integrations.backends.server.serving.observed import NOTHING, Observed, joined
from uq_llm_integrations.backends.server.serving.request_fields import Wish
from uq_llm_integrations.backends.token_statistics import COLUMNS, column, exact_statistics
from uq_llm_integrations.records import Floats

NOT_OBSERVED = "the server observed none of this answer's tokens"

Scores = dict[str, float | None]

_TOKEN = COLUMNS.index("token")


def entropies(rows: Floats) -> list[float | None]:
    """Return each row's entropy in nats, None where it is not known."""
    return _numbers(exact_statistics(rows)["entropy"])


def scores(rows: Floats) -> Scores:
    """Return scores of tokens as a whole; one of which some is not known is None."""
    if not len(rows):
        return {"mean_entropy": None, "perplexity": None}
    with np.errstate(over="ignore"):
        perplexity = np.exp(-column(rows, "logprob").mean())
    mean = exact_statistics(rows)["entropy"].mean()
    return {"mean_entropy": _number(mean), "perplexity": _number(perplexity)}


def described(
    observed: Observed,
    first: int,
    wish: Wish,
    *,
    whole: Scores | None,
    hides_tokens: bool = False,
) -> dict[str, Any]:
    """Return a response's `uncertainty` for some tokens, of which `first` is the first.

    `whole` are the scores of all of them, None where these are still to come.
    """
    rows = observed.rows
    told: dict[str, Any] = {
        "version": VERSION,
        "exact": observed.why_inexact is None,
        "reason": observed.why_inexact,
        "first": first,
        "entropy": entropies(rows),
    }
    if whole is not None:
        told["scores"] = whole
    if wish.has_rows:
        told["rows"] = _encoded(rows, hides_tokens=hides_tokens)
    return told


@dataclass
class ChoiceRows:
    """The rows of one choice: those that a client has, and those that go out with the next chunk.

    A server holds chunks back, for instance while it reads a tool call.
    """

    given: list[Observed] = field(default_factory=list)
    count: int = 0
    """How many tokens the client has."""
    waiting: list[Observed] = field(default_factory=list)

    def flush(self) -> tuple[int, Observed]:
        """Return the rows that wait, and the index of the first of them."""
        first, waiting = self.count, joined(self.waiting)
        self.given.append(waiting)
        self.waiting.clear()
        self.count += len(waiting.rows)
        return first, waiting


@dataclass
class Answers:
    """Writes the statistics of one request's choices into its response."""

    wish: Wish
    metrics: Metrics
    hides_tokens: bool = False
    choices: dict[int, ChoiceRows] = field(default_factory=dict)
    prompts: dict[int, Observed] = field(default_factory=dict)

    def see(self, index: int, observed: Observed | None, prompt: Observed | None) -> None:
        """Keep what an output of the engine has of a choice."""
        rows = self.choices.setdefault(index, ChoiceRows())
        rows.waiting.append(observed or Observed(NOTHING.rows, NOT_OBSERVED))
        if prompt is not None:
            self.prompts[index] = prompt

    def part(self, index: int, *, is_last: bool) -> dict[str, Any]:
        """Return the `uncertainty` of the tokens that wait; the last has the whole's scores."""
        rows = self.choices.setdefault(index, ChoiceRows())
        first, waiting = rows.flush()
        whole = self._whole(rows) if is_last else None
        return described(waiting, first, self.wish, whole=whole, hides_tokens=self.hides_tokens)

    def _whole(self, rows: ChoiceRows) -> Scores:
        """Return the scores of a choice, and count it."""
        seen = joined(rows.given)
        found = scores(seen.rows)
        self.metrics.count(found["mean_entropy"], seen.why_inexact is None)
        return found

    def prompt_part(self, index: int) -> dict[str, Any] | None:
        """Return the `prompt_uncertainty` of a choice, once."""
        observed = self.prompts.pop(index, None)
        if observed is None:
            return None
        scored = observed.rows[1:] if self.wish.scored_from == 0 else observed.rows
        return described(observed, self.wish.scored_from, self.wish, whole=scores(scored))


def beside(values: Sequence[float | None], count: int) -> list[float | None]:
    """Return one value for each of `count` log-probabilities, which end with those of `values`."""
    missing = max(count - len(values), 0)
    return [None] * missing + list(values[max(len(values) - count, 0) :])


def _encoded(rows: Floats, *, hides_tokens: bool) -> str:
    if hides_tokens:
        rows = rows.copy()
        rows[:, _TOKEN] = np.nan
    return base64.b64encode(np.ascontiguousarray(rows, "<f8").tobytes()).decode()


def _numbers(values: Floats) -> list[float | None]:
    return [_number(one) for one in values.tolist()]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
