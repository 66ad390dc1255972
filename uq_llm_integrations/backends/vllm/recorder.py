"""The statistics of each distribution, kept on the worker's device until they are taken."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import torch

from uq_llm_integrations.backends.device_sums import row_statistics

Row = tuple[int, str, int]
"""A row of the batch, the request that it belongs to, the place of the token it is drawn for."""


class Recorder:
    """Keeps the statistics of unfinished requests on the device until the client takes them."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[int, tuple[torch.Tensor, int]]] = {}

    def observe(
        self, logprobs: torch.Tensor, rows: list[Row], *, has_forbidden: bool
    ) -> torch.Tensor:
        """Keep and return the statistics of some rows, which are sorted.

        A row computed again replaces its first version.
        """
        if not rows:
            return logprobs.new_zeros(0)
        if len(rows) < len(logprobs):
            logprobs = logprobs[[row for row, _, _ in rows]]
            rows = [(i, request, place) for i, (_, request, place) in enumerate(rows)]
        table = row_statistics(logprobs, has_forbidden=has_forbidden)
        for row, request, place in rows:
            self._kept.setdefault(request, {})[place] = (table, row)
        return table

    def keep_tokens(self, request: str, logprobs: torch.Tensor, token_ids: list[int]) -> None:
        """Keep the log-probability and the rank of some tokens of one distribution [V]."""
        chosen = logprobs[token_ids].double()
        ranks = (logprobs >= chosen[:, None]).sum(-1)
        table = torch.stack([chosen, ranks.double()], -1)
        self._kept[request] = {i: (table, i) for i in range(len(token_ids))}

    def take(self, requests: Iterable[str]) -> list[bytes]:
        """Forget some requests and return for each its float64 rows from token 0 on, unbroken."""
        return [self._rows(self._kept.pop(request, {})) for request in requests]

    def peek(self, request: str, first: int) -> bytes:
        """Return a request's float64 rows so far, from token `first` on."""
        kept = self._kept.get(request, {})
        rows = {place - first: row for place, row in kept.items() if place >= first}
        return self._rows(rows)

    @property
    def requests(self) -> list[str]:
        """The requests of which something is kept."""
        return list(self._kept)

    @staticmethod
    def _rows(kept: dict[int, tuple[torch.Tensor, int]]) -> bytes:
        unbroken = [kept[place] for place in range(len(kept)) if place in kept]
        if not unbroken or len(unbroken) < len(kept):
            return b""
        tables = [table for table, _ in unbroken]
        starts = accumulate((len(table) for table in tables), initial=0)
        indices = [start + row for start, (_, row) in zip(starts, unbroken, strict=False)]
        data: bytes = torch.cat(tables)[indices].cpu().numpy().tobytes()
        return data


RECORDER = Recorder()
