"""What must hold of every answer and of every row of its trace, whatever backend it comes from.

An answer whose rows break it is kept; its trace is replaced by one without rows, which says why.
An answer to something else is an error.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np

from uq_llm_integrations.backends.token_statistics import TOLERANCE
from uq_llm_integrations.errors import EngineError, EvidenceError
from uq_llm_integrations.records import Candidate, Floats, StreamPiece, TokenTrace

FINITE = float(np.finfo(np.float32).max)

_COLUMNS = tuple(
    one.name
    for one in fields(TokenTrace)
    if one.name not in {"vocabulary_size", "top_ids", "top_logprobs", "why_inexact"}
    and one.name not in {"grammar", "damage"}
)
_ZERO_AT_MOST = ("logprob", "mean_logprob")


def sound_candidate(candidate: Candidate) -> Candidate:
    """Return the candidate, without its trace's rows where they cannot be true.

    There are as many rows as tokens, each of its own token: finite log-probabilities of at most 0,
    entropies from 0 to log V and within their interval, masses from 0 to 1, ranks from 1 to V. What
    is above 0 by rounding becomes 0.

    Example:
        >>> trace = TokenTrace(10, np.log([0.5, 0.25]))
        >>> candidate = Candidate((1,), (2, 3, 4), "three", trace)
        >>> sound_candidate(candidate).trace.damage
        'the backend gave 2 rows for 3 tokens'
    """
    trace = sound_trace(candidate.trace, candidate.token_ids)
    return candidate if trace is candidate.trace else replace(candidate, trace=trace)


def sound_piece(piece: StreamPiece) -> StreamPiece:
    """Return a piece of a stream with what `sound_candidate` makes of its traces."""
    trace = sound_trace(piece.trace, piece.token_ids)
    whole = sound_candidate(piece.candidate) if piece.candidate else None
    return replace(piece, trace=trace, candidate=whole)


def check_answers(
    candidates: Sequence[Candidate], prompt_ids: Sequence[int], number: int
) -> Sequence[Candidate]:
    """Return the candidates of a request; raise EngineError where they are not what was requested.

    That is so many of them as were requested, each of this prompt.

    Example:
        >>> check_answers([], (1, 2), 1)
        Traceback (most recent call last):
        uq_llm_integrations.errors.EngineError: the backend gave 0 candidates of the 1 requested
    """
    if len(candidates) != number:
        raise EngineError(
            f"the backend gave {len(candidates)} candidates of the {number} requested"
        )
    prompt = tuple(prompt_ids)
    if any(one.prompt_ids != prompt for one in candidates):
        raise EngineError("the backend gave an answer to another prompt")
    return candidates


def check_given(
    candidates: Sequence[Candidate], prompt_ids: Sequence[int], texts: Sequence[Sequence[int]]
) -> Sequence[Candidate]:
    """Return the traces of given tokens; raise EngineError where they are of other ones."""
    check_answers(candidates, prompt_ids, len(texts))
    for one, ids in zip(candidates, texts, strict=True):
        if one.error is None and one.token_ids != tuple(ids):
            raise EngineError("the backend gave the trace of other tokens than those to score")
    return candidates


def check_streamed(
    candidate: Candidate, prompt_ids: Sequence[int], token_ids: Sequence[int]
) -> None:
    """Raise EngineError where a stream's answer does not consist of the tokens that it gave."""
    check_answers([candidate], prompt_ids, 1)
    if candidate.token_ids != tuple(token_ids[: len(candidate.token_ids)]):
        raise EngineError("the pieces of the backend's stream are not those of its answer")


def check_scored(candidates: Sequence[Candidate]) -> None:
    """Raise why the tokens of one of the candidates have no log-probabilities."""
    for one in candidates:
        if one.error:
            raise one.error
        if one.trace.damage:
            raise EvidenceError(one.trace.damage)


def damaged_trace(vocabulary_size: int, why: str) -> TokenTrace:
    """Return the trace of tokens whose rows cannot be relied upon."""
    return TokenTrace(vocabulary_size, np.zeros(0), why_inexact=why, damage=why)


def sound_trace(trace: TokenTrace, token_ids: Sequence[int]) -> TokenTrace:
    """Return the trace, or where its rows cannot be true, one without rows that says why."""
    if trace.damage is not None:
        return trace
    try:
        why = _why_damaged(trace, token_ids)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:  # no arrays of numbers
        why = f"the backend gave rows that cannot be read: {error or type(error).__name__}"
    if why is not None:
        return damaged_trace(trace.vocabulary_size, why)
    return _without_rounding(trace)


def _why_damaged(trace: TokenTrace, token_ids: Sequence[int]) -> str | None:
    count, size = len(token_ids), trace.vocabulary_size
    if np.shape(trace.logprob) != (count,):
        rows = len(trace.logprob) if np.ndim(trace.logprob) == 1 else np.shape(trace.logprob)
        return f"the backend gave {rows} rows for {count} tokens"
    if not count:
        return None
    if size < 1:
        return f"the backend gave a vocabulary of {size} tokens"
    why = _why_columns(trace, count)
    if why is None and (trace.top_ids is not None or trace.top_logprobs is not None):
        why = _why_top(trace, np.asarray(token_ids))
    return why


def _why_columns(trace: TokenTrace, count: int) -> str | None:
    """Return which value of one number a token cannot be true."""
    given = {name: one for name in _COLUMNS if (one := getattr(trace, name)) is not None}
    for name, one in given.items():
        if not isinstance(one, np.ndarray) or one.shape != (count,):
            return f"the backend gave {name} of the shape {np.shape(one)} for {count} tokens"
    values = np.array(list(given.values()), np.float64)
    limits = _limits(trace.vocabulary_size)
    low, high = np.array([limits[name] for name in given]).T[:, :, None]
    if not (holds := (values >= low) & (values <= high)).all():
        at, token = np.argwhere(~holds)[0]
        name = list(given)[at]
        return (
            f"the backend gave {name} {values[at, token]} at token {token}; "
            f"allowed are {limits[name][0]:g} to {limits[name][1]:g}"
        )
    return _why_interval(trace)


def _limits(size: int) -> dict[str, tuple[float, float]]:
    """Return the least and the most that each column may hold, for V tokens.

    The varentropy is less than 1 + log(V - 1)^2 / 4 (Reeb & Wolf 2015, arXiv:1304.0036, lemma 15).
    """
    most = float(np.log(size)) + TOLERANCE
    sums = 1 - TOLERANCE, size * (1 + TOLERANCE)
    entropies = dict.fromkeys(("entropy", "entropy_lower", "entropy_upper"), (-TOLERANCE, most))
    return {
        "logprob": (-FINITE, TOLERANCE),
        "mean_logprob": (-FINITE, TOLERANCE),
        "rank": (1, size),
        "varentropy": (-TOLERANCE, (1 + TOLERANCE) * (1 + most**2 / 4)),
        "root_sum": sums,
        "fourth_root_sum": sums,
        "support": (1, size),
        "missing_mass": (-TOLERANCE, 1 + TOLERANCE),
        **entropies,
    }


def _why_interval(trace: TokenTrace) -> str | None:
    """Return where an entropy does not lie within its bounds, or these are the wrong way round."""
    ends = [trace.entropy_lower, trace.entropy, trace.entropy_upper]
    known = [end for end in ends if end is not None]
    for low, high in pairwise(known):
        if (low > high + TOLERANCE).any():
            token = int(np.argmax(low - high))
            return f"the backend gave an entropy outside of its interval at token {token}"
    return None


def _why_top(trace: TokenTrace, token_ids: np.ndarray) -> str | None:
    """Return which of the top log-probabilities cannot be true, or are not of their token."""
    ids, top = trace.top_ids, trace.top_logprobs
    if ids is None or top is None or ids.shape != top.shape or top.shape[:1] != token_ids.shape:
        shapes = " and ".join("none" if one is None else str(one.shape) for one in (ids, top))
        return f"the backend gave top tokens of the shapes {shapes} for {len(token_ids)} tokens"
    if not (top <= TOLERANCE).all():
        return "the backend gave top log-probabilities above 0, or none that are numbers"
    if (np.exp(np.minimum(top, 0.0)).sum(-1) > 1 + TOLERANCE).any():
        return "the backend gave top tokens whose probabilities add up to more than 1"
    if ((ids < 0) | (ids >= trace.vocabulary_size))[np.isfinite(top)].any():
        return f"the backend gave top tokens beyond the {trace.vocabulary_size} of the vocabulary"
    return _why_other_token(trace.logprob, ids, top, token_ids)


def _why_other_token(
    logprob: Floats, ids: np.ndarray, top: Floats, token_ids: np.ndarray
) -> str | None:
    """Return where a row's log-probability is not the one that its token has among the top."""
    own = ids == token_ids[:, None]
    of_own = np.where(own, top, -np.inf).max(-1, initial=-np.inf)
    differs = own.any(-1) & ~(np.abs(of_own - logprob) <= TOLERANCE * (1 + np.abs(logprob)))
    if differs.any():
        return f"the backend's row of token {int(np.argmax(differs))} belongs to another token"
    return None


def _without_rounding(trace: TokenTrace) -> TokenTrace:
    """Return the trace with what rounding has put beyond 0 at 0, and its top in order."""
    changed = {
        name: np.minimum(one, 0.0)
        for name in (*_ZERO_AT_MOST, "top_logprobs")
        if (one := getattr(trace, name)) is not None and one.size and one.max() > 0
    }
    changed |= {
        name: np.maximum(one, 0.0)
        for name in ("entropy", "varentropy", "entropy_lower", "missing_mass")
        if (one := getattr(trace, name)) is not None and one.size and one.min() < 0
    }
    return replace(trace, **changed) if changed else trace
