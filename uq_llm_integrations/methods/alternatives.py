"""The tokens that might have stood in the place of each, and what they mean beside it."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from uq_llm_integrations.methods.boosted import boosted_probabilities
from uq_llm_integrations.methods.context import EvidenceError, Gathering, provides
from uq_llm_integrations.methods.sampling import VERDICTS, entailments
from uq_llm_integrations.methods.wishes import Asking, Decode, Rescore, Together
from uq_llm_integrations.records import Candidate, Floats, TokenTrace

ALTERNATIVES = 10
"""Tokens that are compared in each place, the answer's own included; lm-polygraph's number."""

DOMINANT = 20, 256
"""Top log-probabilities that tell in most places which tokens dominate, and in any place."""


@provides("greedy_tokens_alternatives")
def alternatives(gathering: Gathering) -> Asking[list[Any]]:
    """Return for each candidate, for each token: itself and the most probable others, by id."""
    traces = yield from top_traces(gathering.candidates, ALTERNATIVES)
    pairs = zip(gathering.candidates, traces, strict=True)
    return [_alternatives(candidate, trace) for candidate, trace in pairs]


def _alternatives(candidate: Candidate, trace: TokenTrace) -> list[list[tuple[int, float]]]:
    assert trace.top_ids is not None and trace.top_logprobs is not None
    rows = []
    for place, token in enumerate(candidate.token_ids):
        ids, logprobs = trace.top_ids[place], trace.top_logprobs[place]
        order = np.argsort(-logprobs, kind="stable")[:ALTERNATIVES]
        others = [(int(ids[i]), float(logprobs[i])) for i in order if ids[i] != token]
        rows.append([(token, float(trace.logprob[place])), *others[: ALTERNATIVES - 1]])
    return rows


@provides("greedy_tokens_alternatives_nli")
def alternative_verdicts(gathering: Gathering) -> Asking[list[Any]]:
    """Return for each candidate, for each token: what it entails of its alternatives, and back.

    Tokens are compared as words, without the punctuation around them.
    """
    given = yield from gathering.get("greedy_tokens_alternatives")
    tokens = sorted({token for rows in given for row in rows for token, _ in row})
    texts = yield Together(tuple(_decoded(token) for token in tokens))
    words = {
        token: text.strip(string.punctuation + " \n")
        for token, text in zip(tokens, texts, strict=True)
    }
    rows = [[words[token] for token, _ in row] for one in given for row in one]
    matrices = iter((yield from _matrices(gathering, rows)))
    return [[next(matrices) for _ in one] for one in given]


def _decoded(token: int) -> Asking[str]:
    text: str = yield Decode((token,))
    return text


def _matrices(
    gathering: Gathering, rows: Sequence[Sequence[str]]
) -> Asking[list[list[list[str | None]]]]:
    """Return [N, N] verdicts for each row of N words, of the first and each only."""
    there = [(row[0], word) for row in rows for word in row]
    shares = yield from entailments(gathering, [*there, *((b, a) for a, b in there)])
    verdicts = [VERDICTS[best] for best in shares.argmax(-1)]
    forward, backward = iter(verdicts[: len(there)]), iter(verdicts[len(there) :])
    matrices = []
    for row in rows:
        matrix: list[list[str | None]] = [[None] * len(row) for _ in row]
        for i in range(len(row)):
            matrix[i][0] = next(backward)
            matrix[0][i] = next(forward)
        matrices.append(matrix)
    return matrices


@provides("boosted_probabilities")
def boosted(gathering: Gathering) -> Asking[list[Any]]:
    """Return [T] boosted probabilities of each candidate."""
    found: list[Any] = yield Together(tuple(_boosted(one) for one in gathering.candidates))
    return found


def _boosted(candidate: Candidate) -> Asking[Floats]:
    values = boosted_probabilities(candidate.trace, candidate.token_ids)
    for count in DOMINANT:
        if values is None:
            (trace,) = yield from top_traces([candidate], count)
            values = boosted_probabilities(trace, candidate.token_ids)
    assert values is not None
    return values


def top_traces(candidates: Sequence[Candidate], count: int) -> Asking[list[TokenTrace]]:
    """Return each candidate's trace with so many top log-probabilities, from a pass if need be."""
    traces: list[TokenTrace] = yield Together(tuple(_top(one, count) for one in candidates))
    return traces


def _top(candidate: Candidate, count: int) -> Asking[TokenTrace]:
    if _known(candidate.trace) >= min(count, candidate.trace.vocabulary_size):
        return candidate.trace
    scored: Candidate
    (scored,) = yield Rescore(candidate.prompt_ids, (candidate.token_ids,), count)
    if scored.error:
        raise scored.error
    if _known(scored.trace) < min(count, scored.trace.vocabulary_size):
        raise EvidenceError(f"{count} top log-probabilities of each token cannot be had")
    return scored.trace


def _known(trace: TokenTrace) -> int:
    return 0 if trace.top_logprobs is None else trace.top_logprobs.shape[1]
