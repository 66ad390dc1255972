"""The API server's side of the columns: from the engine's outputs to the rows of each answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from uq_llm_integrations.backends.server.serving.columns import (
    has_columns,
    rows_of,
    tokens_of,
    unknown_rows,
)
from uq_llm_integrations.backends.server.serving.marks import WIDTH, Mark
from uq_llm_integrations.backends.token_statistics import COLUMNS
from uq_llm_integrations.records import Floats

if TYPE_CHECKING:
    from vllm.v1.outputs import LogprobsLists, LogprobsTensors

NO_COLUMNS = "the engine's processes sent no statistics; they must be started with the plugin, too"
OTHER_TOKENS = "the engine's statistics belong to other tokens"
WHOLE_VOCABULARY = "prompt_logprobs=-1 leaves no room for the statistics of the prompt"


@dataclass(frozen=True)
class Observed:
    """Rows of tokens, with the `COLUMNS`, and why some of them are not known."""

    rows: Floats
    why_inexact: str | None = None

    def joined(self, later: Observed) -> Observed:
        """Return these rows and later ones."""
        rows = np.concatenate([self.rows, later.rows])
        return Observed(rows, self.why_inexact or later.why_inexact)

    def checked(self, token_ids: Sequence[int]) -> Observed:
        """Return one row for each of these tokens, none of which is another token's."""
        count = len(token_ids)
        rows, why = self.rows[:count], self.why_inexact
        if len(rows) < count:
            rows = np.concatenate([rows, unknown_rows(count - len(rows))])
            why = why or NO_COLUMNS
        known = tokens_of(rows)
        wrong = (known >= 0) & (known != np.asarray(token_ids, np.int64))
        if wrong.any():
            return Observed(unknown_rows(count), OTHER_TOKENS)
        if why is None and np.isnan(rows).any():
            why = NO_COLUMNS
        return Observed(rows, why)


NOTHING = Observed(np.zeros((0, len(COLUMNS))))


@dataclass
class RequestRows:
    """What was seen so far of one sample, and of its prompt."""

    mark: Mark
    prompt_ids: Sequence[int]
    why_no_prompt: str | None = None
    _parts: list[Observed] = field(default_factory=list)
    _given: int = 0
    prompt: Observed | None = None

    def add(self, lists: LogprobsLists) -> None:
        """Add the rows of a step."""
        ids, logprobs, ranks, *_ = lists
        if has_columns(logprobs):
            self._parts.append(Observed(rows_of(ids, ranks)))
        else:
            self._parts.append(Observed(unknown_rows(len(ids)), NO_COLUMNS))

    def add_prompt(self, tensors: LogprobsTensors) -> None:
        """Add the rows of the prompt, of which those before the first scored token are garbage."""
        first = max(self.mark.scored_from, 1)
        expected = self.prompt_ids[first:]
        ids, logprobs, ranks = (one.numpy() for one in tensors[:3])
        if not expected:
            found = NOTHING
        elif len(ids) < len(expected) or not has_columns(logprobs):
            found = Observed(unknown_rows(len(expected)), NO_COLUMNS)
        else:
            ids, ranks = ids[-len(expected) :], ranks[-len(expected) :]
            found = Observed(rows_of(ids, ranks))
        self.prompt = found.checked(expected)

    def taken(self, token_ids: Sequence[int], *, is_delta: bool) -> Observed:
        """Return the rows of an output's tokens: of all so far, or of those not yet taken."""
        seen = self._joined()
        if not is_delta:
            return seen.checked(token_ids)
        start, self._given = self._given, self._given + len(token_ids)
        return Observed(seen.rows[start:], seen.why_inexact).checked(token_ids)

    def scored_prompt(self) -> Observed | None:
        """Return the rows of the prompt's scored tokens, None where none were wanted.

        The first token of all has no distribution before it.
        """
        if not self.mark.scores_prompt:
            return None
        count = max(len(self.prompt_ids) - max(self.mark.scored_from, 1), 0)
        found = self.prompt or Observed(unknown_rows(count), self.why_no_prompt or NO_COLUMNS)
        if self.mark.scored_from == 0 and self.prompt_ids:
            found = Observed(unknown_rows(1)).joined(found)
        return found

    def _joined(self) -> Observed:
        if len(self._parts) > 1:
            rows = np.concatenate([one.rows for one in self._parts])
            why = next((one.why_inexact for one in self._parts if one.why_inexact), None)
            self._parts = [Observed(rows, why)]
        return self._parts[0] if self._parts else NOTHING


def without_columns(given: Any) -> Any:
    """Return log-probabilities as the engine gives them without the plugin."""
    ids, logprobs, *others = given
    as_array = logprobs if isinstance(logprobs, np.ndarray) else logprobs.numpy()
    if not has_columns(as_array):
        return given
    return type(given)(ids[:, :-WIDTH], logprobs[:, :-WIDTH], *others)
