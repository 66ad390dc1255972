"""What an answer claims, in which of its tokens, and what is said of each claim by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise, product
from typing import Any

from uq_llm_integrations.methods.context import EvidenceError, Gathering, provides
from uq_llm_integrations.methods.prompting import P_TRUE_CLAIM, called_true
from uq_llm_integrations.methods.sampling import VERDICTS, entailments
from uq_llm_integrations.methods.sentences import Span, Spans
from uq_llm_integrations.methods.wishes import Asking, Compute, Split
from uq_llm_integrations.records import Claim


@provides("claims")
def claims(gathering: Gathering) -> Asking[list[Any]]:
    """Return the claims of each candidate: its parts, and the tokens that hold some of each."""
    rows = []
    for candidate in gathering.candidates:
        spans = yield Compute(partial(_told, gathering.method_options.claims, candidate.text))
        pieces: list[str] = yield Split(candidate.token_ids)
        if not "".join(pieces).startswith(candidate.text):
            raise EvidenceError("the answer's text is not that of its tokens")
        rows.append(_aligned(candidate.text, pieces, spans))
    return rows


def _told(spans: Spans, text: str) -> list[Span]:
    try:
        found = [(int(start), int(end)) for start, end in spans(text)]
    except Exception as error:  # the caller's own function, and so anything
        raise EvidenceError(f"the claims of an answer cannot be told: {error}") from error
    for start, end in found:
        if not 0 <= start < end <= len(text):
            raise EvidenceError(
                f"a claim from {start} to {end} is no part of {len(text)} characters"
            )
    return found


def _aligned(text: str, pieces: Sequence[str], spans: Sequence[Span]) -> list[Claim]:
    edges = _edges(pieces)
    return [
        Claim(
            text[start:end],
            tuple(i for i, (first, last) in enumerate(edges) if first < end and start < last),
        )
        for start, end in spans
    ]


def _edges(pieces: Sequence[str]) -> list[Span]:
    """Return the part of the text that each token says.

    A token without text of its own begins a character that a later one completes; it has its part.
    """
    edges = list(pairwise(accumulate(map(len, pieces), initial=0)))
    for place in reversed(range(len(pieces) - 1)):
        if not pieces[place]:
            edges[place] = edges[place + 1]
    return edges


@provides("nli_to_sample_texts")
def sample_verdicts(gathering: Gathering) -> Asking[list[Any]]:
    """Return for each candidate, for each claim: what each sample entails of it."""
    texts: list[str] = yield from gathering.one("sample_texts")
    rows = yield from gathering.get("claims")
    pairs = [(text, claim.text) for row in rows for claim, text in product(row, texts)]
    if not pairs:
        return gathering.for_each([])
    shares = yield from entailments(gathering, pairs)
    verdicts = iter([dict(zip(VERDICTS, share, strict=True)) for share in shares.tolist()])
    return [[[next(verdicts) for _ in texts] for _ in row] for row in rows]


@provides("p_true_claim")
def true_claims(gathering: Gathering) -> Asking[list[Any]]:
    """Return for each candidate the log-probability of True for each claim."""
    rows = yield from gathering.get("claims")
    texts = [claim.text for row in rows for claim in row]
    found = iter((yield from called_true(gathering, P_TRUE_CLAIM, texts)))
    return [[next(found) for _ in row] for row in rows]
