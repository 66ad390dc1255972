"""Statistics as further columns of the engine's log-probabilities.

The bits of each float64 value stand in two int32 columns of the token ids. The log-probabilities of
these columns are `SENTINEL`, which no log-probability is, so that they can be told from others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uq_llm_integrations.backends.server.serving.marks import VALUES, WIDTH
from uq_llm_integrations.backends.token_statistics import COLUMNS, SUMS
from uq_llm_integrations.records import Floats, Integers

if TYPE_CHECKING:
    import torch

SENTINEL = 1.0

_TOKEN, _LOGPROB, _RANK, _STOPPED = map(COLUMNS.index, ("token", "logprob", "rank", "stopped"))


class Columns(NamedTuple):
    """What log-probabilities consist of: [rows, width] twice."""

    ids: torch.Tensor
    logprobs: torch.Tensor


def packed(values: torch.Tensor, ids_type: torch.dtype) -> Columns:
    """Return the columns of rows' sums and log-probability, contiguous float64 [rows, 7]."""
    import torch

    ids = values.view(torch.int32).to(ids_type)
    return Columns(ids, torch.full_like(ids, SENTINEL, dtype=torch.float32))


def has_columns(logprobs: np.ndarray) -> bool:
    """Return whether log-probabilities, [rows, width], end with the columns."""
    if logprobs.ndim != 2 or not len(logprobs) or logprobs.shape[1] <= WIDTH:
        return False
    return bool(logprobs[-1, -1] == SENTINEL)


def rows_of(ids: np.ndarray, ranks: np.ndarray) -> Floats:
    """Return rows with `COLUMNS` of token ids that end with the columns, [T, width].

    Each row's own token comes first.
    """
    halves = np.ascontiguousarray(ids[:, -WIDTH:], np.int32)
    values = halves.view(np.float64).reshape(-1, VALUES)
    rows = np.zeros((len(ids), len(COLUMNS)))
    rows[:, : len(SUMS)], rows[:, _LOGPROB] = values[:, : len(SUMS)], values[:, len(SUMS)]
    rows[:, _TOKEN], rows[:, _RANK], rows[:, _STOPPED] = ids[:, 0], ranks, 0.0
    return rows


def unknown_rows(count: int) -> Floats:
    """Return rows of which nothing is known."""
    return np.full((count, len(COLUMNS)), np.nan)


def tokens_of(rows: Floats) -> Integers:
    """Return the token of each row, -1 where it is not known."""
    tokens: Integers = np.nan_to_num(rows[:, _TOKEN], nan=-1.0).astype(np.int64)
    return tokens
