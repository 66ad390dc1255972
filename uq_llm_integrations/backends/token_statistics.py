"""What is kept of each token and its distribution, one row a token, and what follows from it."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypedDict

import numpy as np

from uq_llm_integrations.records import Floats, TokenTrace

SUMS = ("negative_entropy", "square", "plain", "root", "fourth_root", "support")
"""The sums over each distribution: of p log p, p (log p)**2, log p, p ** (1/2), p ** (1/4), and 1
for each token that is possible at all."""

COLUMNS = (*SUMS, "stopped", "token", "logprob", "rank")
"""What the probe keeps: the sums; 1 where an early stop forced the token, else 0; the token's id,
log-probability and rank. NaN stands for what was not recorded."""

TOLERANCE = 1e-3
"""How far float32 sums may be from the truth; an engine's are within 1e-4."""


class ExactStatistics(TypedDict, total=False):
    """The exact statistics of T distributions by their names in `TokenTrace`, each [T], in nats."""

    entropy: Floats
    varentropy: Floats
    mean_logprob: Floats
    root_sum: Floats
    fourth_root_sum: Floats
    support: Floats


def read_rows(data: bytes) -> Floats:
    """Return the probe's rows as float64 [T, len(COLUMNS)]."""
    return np.frombuffer(data, np.float64).reshape(-1, len(COLUMNS))


def column(rows: Floats, name: str) -> Floats:
    """Return one of the `COLUMNS` of the probe's rows, [T]."""
    return rows[:, COLUMNS.index(name)]


def exact_statistics(rows: Floats) -> ExactStatistics:
    """Return the exact statistics of a trace by their names in `TokenTrace`.

    The rows begin with the `SUMS`.
    """
    negative_entropy, square, plain, root, fourth_root, support = rows[:, : len(SUMS)].T
    return {
        "entropy": _without_rounding(-negative_entropy, 1.0),
        "varentropy": _without_rounding(square - negative_entropy**2, square),
        "mean_logprob": plain / support,
        "root_sum": root,
        "fourth_root_sum": fourth_root,
        "support": support,
    }


def _without_rounding(values: Floats, size: Floats | float) -> Floats:
    """Return 0 for values that rounding has put below it; what is no rounding stays.

    `size` is how large the numbers are of which a value is the difference.
    """
    if values.min(initial=0.0) >= 0:  # most are: streams come a token at a time
        return values
    most = TOLERANCE * np.maximum(size, 1.0)
    return np.where((values < 0) & (values >= -most), 0.0, values)


def dense_rows(logprobs: Floats) -> Floats:
    """Return the `SUMS` of whole distributions, [T, V] log-probabilities."""
    possible = np.isfinite(logprobs)
    logs, p = np.where(possible, logprobs, 0.0), np.exp(logprobs)
    sums = [p * logs, p * logs**2, logs, np.sqrt(p), p**0.25, possible]
    return np.stack([terms.sum(-1) for terms in sums], -1)


def is_stopped(rows: Floats, tokens: int) -> bool:
    """Return whether the last of so many tokens was forced by an early stop."""
    return 0 < tokens <= len(rows) and bool(column(rows, "stopped")[tokens - 1])


def empty_trace(size: int, k: int) -> TokenTrace:
    """Return the exact trace of no tokens, for a vocabulary of this size and top k (-1: all)."""
    width = size if k == -1 or k >= size else k
    none, ids = np.zeros(0), np.zeros(0, np.int64)
    exact = exact_statistics(np.zeros((0, len(SUMS))))
    trace = TokenTrace(size, none, ids, **exact)
    if not width:
        return trace
    top_ids, top_logprobs = np.zeros((0, width), np.int64), np.zeros((0, width))
    return replace(trace, top_ids=top_ids, top_logprobs=top_logprobs)


def join_traces(traces: Sequence[TokenTrace]) -> TokenTrace:
    """Return the trace of all tokens, from one or more traces with the same fields."""
    first = traces[0]
    names = [f.name for f in fields(first) if isinstance(getattr(first, f.name), np.ndarray)]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(one, name) for one in traces]) for name in names
    }
    return replace(first, **arrays)
