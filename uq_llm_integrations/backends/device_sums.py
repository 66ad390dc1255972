"""The sums named in `row_sums`, computed on the device that holds the distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch

from uq_llm_integrations.backends.compiler import has_compiler

# A log-probability below this counts as that of a forbidden token.
_FORBIDDEN = -1e4

# Elements worked on at a time: what stays in a core's caches on the CPU, 64 MiB on other devices.
_CHUNK = {"cpu": 1 << 20}
_CHUNK_ELSEWHERE = 1 << 24

_BLOCK = 512

_HIGH = 369 / 1024  # few digits, so that what is left over is not lost in rounding
_LOW = 0.25 * math.log2(math.e) - _HIGH


def row_statistics(logprobs: torch.Tensor, *, has_forbidden: bool = False) -> torch.Tensor:
    """Return the sums named in `COLUMNS` of float32 log-probabilities, float64 [rows, 7].

    `has_forbidden` says that a grammar has set some of them to -inf.
    """
    size = logprobs.shape[-1]
    is_compiled = logprobs.is_cpu and not has_forbidden and size >= _BLOCK
    statistics = _compiled if is_compiled else partial(_in_place, has_forbidden=has_forbidden)
    rows_at_once = max(1, _CHUNK.get(logprobs.device.type, _CHUNK_ELSEWHERE) // size)
    return torch.cat([statistics(chunk) for chunk in logprobs.split(rows_at_once)])


def warm_up(vocabulary_size: int) -> None:
    """Compile what will be needed, for one row and for any number."""
    for rows in (1, 2):
        row_statistics(torch.zeros(rows, vocabulary_size))


def _in_place(logs: torch.Tensor, has_forbidden: bool = False) -> torch.Tensor:
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


def _statistics(logs: torch.Tensor) -> torch.Tensor:
    """Return the same in terms that the compiler makes one loop of.

    It would store what `exp` gives and read it again, but not what `exp2` gives. The factor between
    the two is in two parts: the rounding error of one would have the same sign for all tokens.
    """
    fourth_root = (logs * _HIGH + logs * _LOW).exp2()
    root = fourth_root.square()
    negative_entropy = root.square() * logs
    terms = [negative_entropy, negative_entropy * logs, logs, root, fourth_root]
    sums = _totals(terms)
    support = torch.full_like(sums[0], logs.shape[-1])
    return torch.stack([*sums, support, torch.zeros_like(support)], -1)


_compiled = torch.compile(_statistics) if has_compiler() else _in_place


def _total(terms: torch.Tensor) -> torch.Tensor:
    return _totals([terms])[0]


def _totals(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum rows in float64, but blocks of them in float32: as exact, and much faster on the CPU."""
    blocks, rest = divmod(terms[0].shape[-1], _BLOCK)
    end = blocks * _BLOCK
    bodies = [term[..., :end].unflatten(-1, (blocks, _BLOCK)).sum(-1) for term in terms]
    totals = torch.stack(bodies).sum(-1, dtype=torch.float64)
    if not rest:
        return totals
    return totals + torch.stack([term[..., end:].sum(-1, dtype=torch.float64) for term in terms])
