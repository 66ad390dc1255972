"""What is known of each token, kept on the worker's device until it is taken."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch

from uq_llm_integrations.backends.token_statistics import COLUMNS, SUMS
from uq_llm_integrations.backends.token_statistics_torch import row_statistics, token_statistics

Row = tuple[int, str, int]
"""A row of the batch, its request, and the index of the token that is sampled from it."""

Kept = dict[int, tuple[torch.Tensor, int]]
"""By the index of each token: a table with the `COLUMNS`, and the row in it."""

_STOPPED, _TOKEN = COLUMNS.index("stopped"), COLUMNS.index("token")


class Unsampled(NamedTuple):
    """Distributions from which the tokens have not been sampled yet."""

    table: torch.Tensor
    """What is kept of them, which lacks the tokens."""
    rows: list[int]
    """Their rows in the batch."""
    logits: torch.Tensor
    total: torch.Tensor


class Recorder:
    """Keeps what is known of unfinished requests on the device until the client takes it."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._unsampled: Unsampled | None = None

    def observe(
        self,
        logits: torch.Tensor,
        rows: list[Row],
        *,
        has_forbidden: bool,
        keeps_tokens: bool = False,
    ) -> torch.Tensor:
        """Keep and return the statistics of some rows, which are sorted.

        A row computed again replaces its first version. With `keeps_tokens`, `keep_samples` comes
        next; until then, the logits may be changed.
        """
        if not rows:
            return logits.new_zeros(0)
        at = [row for row, _, _ in rows]
        own = logits[at] if len(at) < len(logits) else logits
        sums, total = row_statistics(own, has_forbidden=has_forbidden)
        table = sums.new_full((len(rows), len(COLUMNS)), torch.nan)
        table[:, : len(SUMS)], table[:, _STOPPED] = sums, 0.0
        for i, (_, request, index) in enumerate(rows):
            self._kept.setdefault(request, {})[index] = (table, i)
        if keeps_tokens:
            self._unsampled = Unsampled(table, at, own.clone() if own is logits else own, total)
        return table

    def keep_samples(self, token_ids: torch.Tensor) -> None:
        """Keep what the distributions gave to the tokens sampled from them, [batch]."""
        unsampled, self._unsampled = self._unsampled, None
        if unsampled is None:
            return
        sampled = token_ids[unsampled.rows] if len(unsampled.rows) < len(token_ids) else token_ids
        unsampled.table[:, _TOKEN:] = token_statistics(
            unsampled.logits, unsampled.total, sampled.long()
        )

    def keep_tokens(self, request: str, logits: torch.Tensor, token_ids: list[int]) -> None:
        """Keep what one distribution, [vocabulary], gives to some tokens."""
        _, total = row_statistics(logits[None])
        count, tokens = len(token_ids), torch.tensor(token_ids, device=logits.device)
        table = total.new_full((count, len(COLUMNS)), torch.nan)
        rows = logits.expand(count, -1)
        table[:, _TOKEN:] = token_statistics(rows, total.expand(count), tokens)
        self._kept[request] = {i: (table, i) for i in range(len(token_ids))}

    def take(self, requests: Iterable[str]) -> list[bytes]:
        """Forget some requests and return for each its float64 rows from token 0 on, unbroken."""
        return _rows([self._kept.pop(request, {}) for request in requests])

    def peek(self, request: str, first: int) -> bytes:
        """Return a request's float64 rows so far, from token `first` on."""
        kept = self._kept.get(request, {})
        return _rows([{index - first: row for index, row in kept.items() if index >= first}])[0]

    @property
    def requests(self) -> list[str]:
        """The requests of which something is kept."""
        return list(self._kept)


def _rows(kept: Sequence[Kept]) -> list[bytes]:
    """Return the rows of each request; those of one step share a table, which is read once."""
    tables = {id(table): table for rows in kept for table, _ in rows.values()}
    if not tables:
        return [b""] * len(kept)
    starts = dict(zip(tables, accumulate(map(len, tables.values()), initial=0), strict=False))
    unbroken = [rows if rows.keys() == set(range(len(rows))) else {} for rows in kept]
    at = [
        starts[id(table)] + row
        for rows in unbroken
        for table, row in (rows[index] for index in range(len(rows)))
    ]
    data = torch.cat(list(tables.values()))[at].cpu().numpy()
    ends = list(accumulate(map(len, unbroken)))
    return [part.tobytes() for part in np.split(data, ends[:-1])]


RECORDER = Recorder()
