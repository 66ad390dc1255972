"""The sums named in `row_sums`, computed on the device that holds the distributions."""

from __future__ import annotations

import torch

from uq_llm_integrations.backends.compiler import has_compiler

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
