"""Which of an answer's tokens say which part of its text."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from uq_llm_integrations.backends.token_texts import TokenReader, candidate_texts
from uq_llm_integrations.errors import EvidenceError
from uq_llm_integrations.methods.options import Span
from uq_llm_integrations.records import Candidate


async def token_spans(backend: TokenReader, candidate: Candidate) -> list[Span]:
    """Return the span of the text that each token says; those of the end lie behind the text.

    Raises EvidenceError where the text is not that of the tokens.
    """
    pieces = await candidate_texts(backend, candidate)
    if not "".join(pieces).startswith(candidate.text):
        raise EvidenceError("the answer's text is not that of its tokens")
    return _edges(pieces)


def tokens_within(spans: Sequence[Span], part: Span) -> tuple[int, ...]:
    """Return the tokens that say at least one character of a part of the text.

    Example:
        >>> tokens_within([(0, 2), (2, 5), (5, 6)], (3, 6))
        (1, 2)
    """
    start, end = part
    return tuple(i for i, (first, last) in enumerate(spans) if first < end and start < last)


def _edges(pieces: Sequence[str]) -> list[Span]:
    """Return the span of each piece.

    A token without text of its own begins a character that a later one completes; it has its span.
    """
    edges = list(pairwise(accumulate(map(len, pieces), initial=0)))
    for index in reversed(range(len(pieces) - 1)):
        if not pieces[index]:
            edges[index] = edges[index + 1]
    return edges
