"""The `SUMS` of whole distributions in a single kernel, for GPUs.

There each operation costs more to start than to do: a step of few rows would wait for them.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

_LANES = 4096


def row_values(
    logits: torch.Tensor, token_ids: torch.Tensor | None, *, least: float = -math.inf
) -> torch.Tensor:
    """Return what is known of rows of logits, [rows, vocabulary], as float64 [rows, 11].

    The columns are the `SUMS`, the log-probability of the row's token, the log of the sum of
    exp(logit), and the token's id, log-probability and rank. Without tokens, theirs hold nothing.
    Logits below their maximum by `-least` or more are those of forbidden tokens.
    """
    rows, size = logits.shape
    values = logits.new_empty((rows, 11), dtype=torch.float64)
    if not rows:
        return values
    tokens = logits if token_ids is None else token_ids
    with torch.cuda.device_of(logits):
        _kernel[(rows,)](
            logits,
            logits.stride(0),
            size,
            least,
            tokens,
            tokens.stride(0),
            values,
            has_tokens=token_ids is not None,
            width=_LANES,
            num_warps=16,
        )
    return values


@triton.jit
def _kernel(
    logits,
    stride,
    size,
    least,
    tokens,
    token_stride,
    values,
    has_tokens: tl.constexpr,
    width: tl.constexpr,
):
    """Compute one row: first its maximum, then all the sums, each lane in float32."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    values += row * 11
    lanes = tl.arange(0, width)
    highest = tl.full([width], -float("inf"), tl.float32)
    for start in range(0, size, width):
        inside = start + lanes < size
        read = tl.load(logits + start + lanes, inside, -float("inf"))
        highest = tl.maximum(highest, read.to(tl.float32))
    maximum = tl.max(highest, 0)

    token = tl.zeros([], tl.int64)
    chosen = maximum
    if has_tokens:
        token = tl.load(tokens + row * token_stride).to(tl.int64)
        chosen = tl.load(logits + token).to(tl.float32)

    zeros = tl.zeros([width], tl.float32)
    mass, first, second, plain, root, fourth_root = zeros, zeros, zeros, zeros, zeros, zeros
    support = tl.zeros([width], tl.int32)
    rank = tl.zeros([width], tl.int32)
    for start in range(0, size, width):
        inside = start + lanes < size
        logit = tl.load(logits + start + lanes, inside, -float("inf")).to(tl.float32)
        allowed = inside & ~(logit - maximum <= least)  # NaN is none that is forbidden
        z = tl.where(allowed, logit - maximum, 0.0)
        power = tl.where(allowed, libdevice.exp(z), 0.0)
        mass += power
        first += power * z
        second += power * z * z
        plain += z
        root += tl.where(allowed, libdevice.exp(z * 0.5), 0.0)
        fourth_root += tl.where(allowed, libdevice.exp(z * 0.25), 0.0)
        support += allowed.to(tl.int32)
        rank += (inside & (logit >= chosen)).to(tl.int32)

    total_mass = tl.sum(mass.to(tl.float64), 0)
    count = tl.sum(support, 0).to(tl.float64)
    log_mass = tl.log(total_mass)
    mean = tl.sum(first.to(tl.float64), 0) / total_mass
    square = tl.sum(second.to(tl.float64), 0) / total_mass
    total = maximum.to(tl.float64) + log_mass
    tl.store(values, mean - log_mass)
    tl.store(values + 1, square - log_mass * (2 * mean - log_mass))
    tl.store(values + 2, tl.sum(plain.to(tl.float64), 0) - count * log_mass)
    tl.store(values + 3, tl.sum(root.to(tl.float64), 0) * tl.exp(-0.5 * log_mass))
    tl.store(values + 4, tl.sum(fourth_root.to(tl.float64), 0) * tl.exp(-0.25 * log_mass))
    tl.store(values + 5, count)
    tl.store(values + 7, total)
    if has_tokens:
        tl.store(values + 6, chosen.to(tl.float64) - total)
        tl.store(values + 8, token.to(tl.float64))
        tl.store(values + 9, chosen.to(tl.float64) - total)
        tl.store(values + 10, tl.sum(rank, 0).to(tl.float64))
