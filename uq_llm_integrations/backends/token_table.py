"""A token's log-probability, its rank and the top k of its distribution, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from uq_llm_integrations.backends.token_statistics import column, dense_rows, exact_statistics
from uq_llm_integrations.errors import EngineError
from uq_llm_integrations.records import Floats, Integers, TokenTrace


class TokenTable:
    """Log-probabilities [T, k + 1] and their tokens: each row's own token, then the top k."""

    def __init__(self, logprobs: Floats, ids: Integers, rank: Integers) -> None:
        self.logprob, self.top_logprobs = logprobs[:, 0], logprobs[:, 1:]
        self.top_ids = ids[:, 1:]
        self.rank = rank

    @classmethod
    def of_rows(cls, rows: Floats, token_ids: Sequence[int]) -> Self:
        """Read what the probe kept; each row must hold the token it is for."""
        kept = rows[: len(token_ids)]
        if len(kept) < len(token_ids):
            raise EngineError(f"the probe saw {len(kept)} of {len(token_ids)} tokens")
        if column(kept, "token").tolist() != list(token_ids):
            raise EngineError("the probe's log-probabilities belong to other tokens")
        logprobs, ids = column(kept, "logprob"), np.array(token_ids, np.int64)
        return cls(logprobs[:, None], ids[:, None], column(kept, "rank").astype(np.int64))

    def trace(
        self, size: int, rows: Floats | None, why_inexact: str | None, *, grammar: bool = False
    ) -> TokenTrace:
        """Return the trace, exact where the whole distribution was seen."""
        k = self.top_logprobs.shape[1]
        if rows is not None:
            exact = exact_statistics(rows[: len(self.logprob)])
        elif k >= size:
            exact = exact_statistics(dense_rows(self.top_logprobs))
        else:
            exact = {}
        return TokenTrace(
            vocabulary_size=size,
            logprob=self.logprob,
            rank=self.rank,
            top_ids=self.top_ids if k else None,
            top_logprobs=self.top_logprobs if k else None,
            why_inexact=None if exact else why_inexact,
            grammar=grammar,
            **exact,
        )
