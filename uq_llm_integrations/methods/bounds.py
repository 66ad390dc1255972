"""Entropy and its kin from the top k log-probabilities alone, as intervals that hold the truth.

Of V probabilities some are known; the rest share the missing mass m, none above the cap c, the
smallest of the top k. A sum of concave f(p) with f(0) = 0 over the unknown ones is largest where
they are all equal and smallest where as few as possible hold all of m: floor(m / c) at the cap and
one with what is left. Entropy takes f(p) = -p log p, the power sums f(p) = p ** a with a < 1.

Log-probabilities from an engine are float32 sums, so m is trusted only to within `ROUNDING`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from uq_llm_integrations.records import Floats, Integers, TokenTrace

ROUNDING = 2.0**-22
"""How far a sum of float32 probabilities may be from the truth: two units in the last place."""


def bounded(trace: TokenTrace) -> TokenTrace:
    """Return the trace with its missing mass and the bounds of its entropies filled in."""
    if trace.entropy is not None:
        lower = upper = trace.entropy
        missing = np.zeros_like(lower)
    elif trace.rank is None:
        return trace
    else:
        known = known_part(trace)
        lower, upper = entropy_bounds(known)
        missing = known.missing
    return replace(trace, entropy_lower=lower, entropy_upper=upper, missing_mass=missing)


@dataclass(frozen=True)
class Known:
    """The known part of T distributions.

    `probabilities` is [T, K], zero where a row knows fewer than K; `count`, `missing` and `cap` are
    [T]. `missing` is the mass of the unknown tokens and `cap` the most that one of them can hold.
    """

    probabilities: Floats
    count: Integers
    missing: Floats
    cap: Floats
    vocabulary_size: int


def known_part(trace: TokenTrace) -> Known:
    """Collect what is known: the top k, and the sampled token where it is not among them."""
    rank, top = trace.rank, trace.top_logprobs
    assert rank is not None
    top = np.zeros((len(trace), 0)) if top is None else np.exp(top)
    k = top.shape[1]
    sampled = np.where(rank > k, np.exp(trace.logprob), 0.0)
    probabilities = np.column_stack([top, sampled])
    missing = np.clip(1.0 - probabilities.sum(-1), 0.0, 1.0)
    # Without a top k only a sampled token of rank 1 says how large the others can be.
    cap = top[:, -1] if k else np.where(rank == 1, sampled, 1.0)
    return Known(probabilities, k + (rank > k), missing, cap, trace.vocabulary_size)


def entropy_bounds(known: Known) -> tuple[Floats, Floats]:
    """Return (lower, upper) bounds of the entropy in nats, each [T].

    Both are widened by how much an error of `ROUNDING` in the missing mass can move them.
    """
    total = _information(known.probabilities).sum(-1)
    concentrated = total + _concentrated(_information, known.missing, known.cap)
    spread = total + _spread(_information, known.missing, known)
    slack = ROUNDING * (1.0 + np.log(known.vocabulary_size / ROUNDING))
    highest = np.log(known.vocabulary_size)
    return np.maximum(concentrated - slack, 0.0), np.minimum(spread, highest) + slack


def power_sum_bounds(known: Known, exponent: float) -> tuple[Floats, Floats]:
    """Return (lower, upper) bounds of sum(p ** exponent), each [T], for 0 < exponent < 1."""

    def power(p: Floats) -> Floats:
        return np.asarray(p**exponent)

    total = power(known.probabilities).sum(-1)
    least, most = np.maximum(known.missing - ROUNDING, 0.0), known.missing + ROUNDING
    lower = total * (1 - ROUNDING) + _concentrated(power, least, known.cap)
    upper = total * (1 + ROUNDING) + _spread(power, most, known)
    return np.maximum(lower, 1.0), np.minimum(upper, known.vocabulary_size ** (1 - exponent))


def _information(p: Floats) -> Floats:
    return np.asarray(-p * np.log(np.where(p > 0, p, 1.0)))


def _concentrated(f: Callable[[Floats], Floats], mass: Floats, cap: Floats) -> Floats:
    cap = np.maximum(np.minimum(cap, 1.0), np.finfo(float).tiny)
    full = np.floor(mass / cap)
    rest = np.clip(mass - full * cap, 0.0, cap)
    return np.asarray(full * f(cap) + f(rest))


def _spread(f: Callable[[Floats], Floats], mass: Floats, known: Known) -> Floats:
    unknown = np.maximum(known.vocabulary_size - known.count, 1)
    return np.asarray(unknown * f(mass / unknown))
