"""Splitting a text along its tokens, also where a character spans several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


def split_text(decode: Callable[[list[int]], str], token_ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds; a character belongs to the token that completes it.

    Decoding goes over a short window, since some tokenizers drop the space before the first token
    of what they decode.
    """
    ids, pieces = list(token_ids), []
    start = read = 0
    for end in range(1, len(ids) + 1):
        before, after = decode(ids[start:read]), decode(ids[start:end])
        if after.endswith(_INCOMPLETE) and end < len(ids):
            pieces.append("")
            continue
        pieces.append(after[len(before) :])
        start, read = read, end
    return pieces
