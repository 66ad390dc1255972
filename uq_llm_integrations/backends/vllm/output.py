"""From vLLM's outputs to candidates: pure translation, no engine needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from uq_llm_integrations.backends.row_checks import damaged_trace
from uq_llm_integrations.backends.token_statistics import is_stopped
from uq_llm_integrations.backends.token_table import TokenTable
from uq_llm_integrations.backends.vllm.client_compat import flat_rows
from uq_llm_integrations.errors import EngineError
from uq_llm_integrations.records import Candidate, Floats

if TYPE_CHECKING:
    from vllm import RequestOutput
    from vllm.logprobs import FlatLogprobs


def candidate_of(
    output: RequestOutput,
    vocabulary_size: int,
    rows: Floats | None,
    why_inexact: str | None,
    *,
    text: str | None = None,
    grammar: bool = False,
    reason: str | None = None,
) -> Candidate:
    """Return the candidate of a request with one sample.

    `rows` are what the probe kept of its tokens, see `read_rows`, or None with the reason. `text`
    and `reason` are the text and the finish reason where the engine gave none. The token that an
    early stop forced is left out.
    """
    completion = output.outputs[0]
    token_ids = tuple(completion.token_ids)
    stopped = rows is not None and is_stopped(rows, len(token_ids))
    kept, kept_rows = slice(len(token_ids) - stopped), rows
    if rows is not None and len(rows) < len(token_ids):
        why_inexact = f"the probe saw {len(rows)} of {len(token_ids)} tokens"
        rows = None
    try:
        table = _table(completion.logprobs, token_ids, kept_rows)
        trace = table.trace(vocabulary_size, rows, why_inexact, grammar=grammar)
    except EngineError as error:  # the answer is as good as any
        trace = damaged_trace(vocabulary_size, str(error))
    return Candidate(
        prompt_ids=tuple(output.prompt_token_ids or ()),
        token_ids=token_ids[kept],
        text=completion.text if text is None else text,
        trace=trace[kept],
        finish_reason="early_stop" if stopped else reason or completion.finish_reason,
        stop_reason=None if stopped else completion.stop_reason,
        cached_tokens=output.num_cached_tokens or 0,
    )


def _table(
    flat: FlatLogprobs | None, token_ids: Sequence[int], rows: Floats | None
) -> LogprobTable:
    """Return the log-probabilities that the engine gave, else those that the probe kept."""
    if flat is None and rows is not None:
        return LogprobTable.of_rows(rows, token_ids)
    return LogprobTable.read(flat, token_ids)


class LogprobTable(TokenTable):
    """vLLM's flat log-probabilities as arrays: for each token itself and the top k."""

    @classmethod
    def read(
        cls, flat: FlatLogprobs | None, token_ids: Sequence[int], first: int = 0
    ) -> LogprobTable:
        """Read the rows from token `first` on; each row must hold the token it is for.

        A row has k + 1 entries, the token itself first.
        """
        expected = np.array(token_ids[first:], np.int64)
        if not len(expected):
            return cls(np.zeros((0, 1)), np.zeros((0, 1), np.int64), expected)
        if flat is None or len(flat) != len(token_ids):
            rows = 0 if flat is None else len(flat)
            raise EngineError(
                f"the engine gave {rows} log-probabilities for {len(token_ids)} tokens"
            )
        logprobs, ids, ranks = flat_rows(flat, first)
        if not np.array_equal(ids[:, 0], expected):
            raise EngineError("the engine's log-probabilities belong to other tokens")
        return cls(logprobs, ids, ranks)
