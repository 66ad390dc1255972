"""The confidence that the words of a text stand for: probably, very unlikely, not sure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from uq_llm_integrations.errors import EvidenceError, described
from uq_llm_integrations.methods.words import words

HEDGES: Mapping[str, float] = {
    "almost certain": 0.95,
    "almost certainly": 0.95,
    "highly likely": 0.9,
    "very likely": 0.85,
    "probable": 0.7,
    "probably": 0.7,
    "likely": 0.7,
    "better than even": 0.6,
    "chances are even": 0.5,
    "fifty fifty": 0.5,
    "improbable": 0.2,
    "likely not": 0.2,
    "not likely": 0.2,
    "probably not": 0.2,
    "unlikely": 0.2,
    "not certain": 0.2,
    "not confident": 0.2,
    "not sure": 0.2,
    "uncertain": 0.2,
    "unsure": 0.2,
    "very unlikely": 0.1,
    "highly unlikely": 0.05,
    "almost no chance": 0.02,
    "i don't know": 0.0,
}
"""Expression -> the confidence that it stands for: the medians that readers gave to Kent's words of
estimative probability (https://arxiv.org/abs/2305.14975), what lies between them or denies them,
and the usual ways of not knowing."""

Statements = Sequence[tuple[str, float | None]]
"""What is said, and the confidence that it states; None where that cannot be read for certain."""

NO_STATEMENT = "the text says nothing of the kind"

CLAUSE_END = re.compile(
    r"[;:!?\n()\[\]{}。、！？；：，]|[.,](?=\s|$)| - |—"
    r"|\b(?:(?<!anything )but|although|though|however)\b"
)
DENIED_BEFORE = re.compile(
    r"\b(?:not|never|no|nor|neither|hardly|barely|scarcely|without|less|least|how|whether|if"
    r"|far from|anything but|too)\b"
)
DENIED_BEHIND = re.compile(
    r"\b(?:not|never|wrong|false|incorrect(?:ly)?|untrue|mistaken|impossible|error)\b"
)


def hedged_confidence(text: str, hedges: Mapping[str, float]) -> float:
    """Return the confidence that the expressions in a text stand for.

    The longest expression counts at each place, and whole words: `unlikely` is not `likely`. Raises
    EvidenceError where there is none, one is denied or asked about, or some differ.
    """
    return agreed(list(_hedges_of(plain_words(text), _phrases(tuple(hedges.items())))))


def agreed(said: Statements) -> float:
    """Return the one confidence that all statements make; None is one that cannot be read."""
    if not said:
        raise EvidenceError(NO_STATEMENT)
    for statement, value in said:
        if value is None:
            raise EvidenceError(
                f"no confidence can be read from {described(statement)} for certain"
            )
    values = [value for _, value in said if value is not None]
    if max(values) - min(values) > 1e-9:
        quotes = ", ".join(dict.fromkeys(repr(statement) for statement, _ in said))
        raise EvidenceError(f"the text contradicts itself: {quotes}")
    return values[0]


def plain_words(text: str) -> str:
    """Return a text in lower case with its negations written out: can't is can not."""
    plain = text.casefold().replace("’", "'").replace("cannot", "can not")
    return re.sub(r"\b(ca|wo|sha|[a-z]+)n't\b", r"\1 not", plain)


Phrases = Mapping[str, list[tuple[list[str], float]]]


@lru_cache(maxsize=32)
def _phrases(hedges: tuple[tuple[str, float], ...]) -> Phrases:
    """Return the words of each expression by the first of them, the longest first."""
    found: dict[str, list[tuple[list[str], float]]] = {}
    for expression, confidence in hedges:
        if parts := words(plain_words(expression)):
            found.setdefault(parts[0], []).append((parts, confidence))
    for one in found.values():
        one.sort(key=lambda pair: -len(pair[0]))
    return found


def _hedges_of(text: str, phrases: Phrases) -> Iterator[tuple[str, float | None]]:
    start = 0
    for end in [*CLAUSE_END.finditer(text), None]:
        stop = end.start() if end else len(text)
        is_question = end is not None and end[0] in "?？"
        for phrase, value in _in_clause(words(text[start:stop]), phrases):
            yield phrase, None if is_question else value
        start = end.end() if end else stop


def _in_clause(said: list[str], phrases: Phrases) -> Iterator[tuple[str, float | None]]:
    at = 0
    while at < len(said):
        known = phrases.get(said[at], [])
        match = next((one for one in known if said[at : at + len(one[0])] == one[0]), None)
        if match is None:
            at += 1
            continue
        (parts, value), end = match, at + len(match[0])
        before, behind = " ".join(said[max(0, at - 12) : at]), " ".join(said[end : end + 12])
        is_denied = DENIED_BEFORE.search(before) or DENIED_BEHIND.search(behind)
        quote = said[max(0, at - 2) : end + 2] if is_denied else parts
        yield " ".join(quote), None if is_denied else value
        at = end
