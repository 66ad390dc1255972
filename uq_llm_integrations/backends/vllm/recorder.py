"""The statistics of each distribution, computed and kept on the worker's device."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import torch

from uq_llm_integrations.backends.vllm.start import has_compiler

Row = tuple[int, str, int]
"""A row of the batch, the request that it belongs to, the place of the token it is drawn for."""

# A log-probability below this counts as that of a forbidden token.
_FORBIDDEN = -1e4

# Elements worked on at a time: what stays in a core's caches on the CPU, 64 MiB on other devices.
_CHUNK = {"cpu": 1 << 20}
_CHUNK_ELSEWHERE = 1 << 24

_BLOCK = 512


def row_statistics(logprobs: torch.Tensor, *, has_forbidden: bool = False) -> torch.Tensor:
    """Return the sums named in `COLUMNS` of float32 log-probabilities, float64 [rows, 7].

    `has_forbidden` says that a grammar has set some of them to -inf.
    """
    rows_at_once = max(1, _CHUNK.get(logprobs.device.type, _CHUNK_ELSEWHERE) // logprobs.shape[-1])
    # On the CPU one compiled pass takes half the time of many.
    is_compiled = logprobs.is_cpu and not has_forbidden and logprobs.shape[-1] >= _BLOCK
    statistics = _compiled_statistics if is_compiled else _chunk_statistics
    chunks = [statistics(chunk, has_forbidden) for chunk in logprobs.split(rows_at_once)]
    return torch.cat(chunks)


def warm_up(vocabulary_size: int) -> None:
    """Compile what will be needed, for one row and for several."""
    for rows in (1, 2):
        row_statistics(torch.zeros(rows, vocabulary_size))


def _chunk_statistics(logs: torch.Tensor, has_forbidden: bool) -> torch.Tensor:
    if has_forbidden:
        allowed = logs > _FORBIDDEN
        support = allowed.sum(-1, dtype=torch.float64)
        plain = _total(torch.where(allowed, logs, 0.0))
        logs = logs.clamp(min=_FORBIDDEN)
    else:
        plain = _total(logs)
        support = torch.full_like(plain, logs.shape[-1])
    powers = (logs * 0.25).exp_()  # all that follows happens in this one piece of memory
    fourth_root = _total(powers)
    root = _total(powers.square_())
    negative_entropy = _total(powers.square_().mul_(logs))
    square = _total(powers.mul_(logs))
    stopped = torch.zeros_like(plain)
    return torch.stack([negative_entropy, square, plain, root, fourth_root, support, stopped], -1)


_compiled_statistics = (
    torch.compile(_chunk_statistics, dynamic=True) if has_compiler() else _chunk_statistics
)


def _total(terms: torch.Tensor) -> torch.Tensor:
    """Sum rows in float64, but blocks of them in float32: as exact, and much faster on the CPU."""
    blocks = terms.shape[-1] // _BLOCK
    body = terms[..., : blocks * _BLOCK].unflatten(-1, (blocks, _BLOCK)).sum(-1)
    rest = terms[..., blocks * _BLOCK :]
    return body.sum(-1, dtype=torch.float64) + rest.sum(-1, dtype=torch.float64)


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
