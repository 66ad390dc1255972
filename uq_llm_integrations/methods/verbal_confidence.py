"""One reader of the confidence that a text states, for all methods that ask for it or look for it.

What cannot be read for certain is an EvidenceError that quotes it: a denial (not 90% sure), a bound
(at least 0.9), a question, a number of no known scale (8), statements that contradict each other.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from uq_llm_integrations.errors import EvidenceError
from uq_llm_integrations.methods.hedging import (
    CLAUSE_END,
    NO_STATEMENT,
    agreed,
    hedged_confidence,
    plain_words,
)
from uq_llm_integrations.methods.numerals import ascii_digits
from uq_llm_integrations.methods.stated_numbers import StatedNumber, stated_numbers, with_digits

_FILLERS = (
    r"(?:level|score|rating|value|estimate|is|was|of|at|about|around|approximately|roughly|circa|ca"
    r"|in|my|this|the|that|it|answer|response|would|be|i|am|say|as|a|an|estimated|probability"
    r"|percentage|high|low|medium|moderate|very|quite|fairly|pretty|rather|reasonably|extremely)"
)
_NO_INTERVAL = r"(?! ?(?:interval|region|band|limit|bound)s?\b)"
_LABEL = re.compile(
    rf"\b(?<!lack of )(?:confidence|certainty)\b{_NO_INTERVAL}(?:[^:=\n.]|\.(?=\d)){{0,40}}[:=] ?"
)
_NAMED = rf"\b(?:confiden\w*|certainty|probability|likelihood|chances?|credence)\b{_NO_INTERVAL}"
_BEFORE = re.compile(rf"{_NAMED}(?:[\s:=\-\"'(\[~]|\b{_FILLERS}\b)*$")
_BEHIND = re.compile(
    rf"\s*(?:{_FILLERS} )*"
    rf"(?:confiden\w*{_NO_INTERVAL}|sure|certain\w*|probab\w*|likel\w*|chances?)\b"
)
_SURE = re.compile(rf"\s*(?:{_FILLERS} )*(?:confiden\w*{_NO_INTERVAL}|sure|certain|certainty)\b")

_NO_STATEMENT_BEFORE = re.compile(
    r"\b(?:not|never|no|nor|neither|hardly|barely|scarcely|without|far from|anything but|if|whether"
    r"|(?:less|more|greater|fewer|higher|lower|better|worse) than|at (?:least|most)|over|under"
    r"|above|below|up to|exceed\w*|max\w*|min\w*|top)\b|[<>≤≥≠]"
)
_NO_STATEMENT_BEHIND = re.compile(
    r"^\s*[+±]|\b(?:not|never|or (?:more|less|higher|lower|above|below|greater|better|worse))\b"
)
_DOUBT = re.compile(
    r"\b(?:wrong|incorrect\w*|false|untrue|mistaken|doubt\w*|uncertain\w*|unsure|unlikely|error"
    r"|risk|lack|fail\w*|unconfident)\b"
)
_DOUBT_LABEL = re.compile(r"\b(?:uncertainty|doubt|error|risk)\b[^:=\n]{0,40}[:=]?\W*$")
_COUNTED = re.compile(r" ?[^\W\d]")
_NUMBERED = re.compile(r"(?:#|\b(?:no\.|nr\.?|number|step|option|question|answer)) ?$")
_LIKELY = re.compile(rf"(?<=[\d%t]) (?:{_FILLERS} )*(?:likely|probable)\b")
_MARKUP = re.compile(r"</?[a-z][\w-]{0,30}>|[*`_$\\]")
_LIST_MARK = re.compile(r"^\W*\d+[.)] (?=\S)")
_CONTEXT = 80


def replied_confidence(text: str, hedges: Mapping[str, float], *, is_cut: bool = False) -> float:
    """Return the confidence, from 0 to 1, that a reply to a question for it states.

    A number counts before an expression of `hedges`, and the first line that says something before
    the others. With `is_cut`, a number at the end is not known to be whole. Raises EvidenceError
    where no confidence can be read for certain.

    Example:
        >>> replied_confidence("I am 90 percent sure.", {}), replied_confidence("8/10", {})
        (0.9, 0.8)
    """
    plain = _plain(text)
    first = next((line for line in plain.splitlines() if line.strip()), "")
    for part in dict.fromkeys((first, plain)):
        said = _statements(part, is_cut=is_cut and plain.rstrip().endswith(part.rstrip()))
        if said:
            return _not_against(agreed(said), part, hedges)
        try:
            return hedged_confidence(part, hedges)
        except EvidenceError as error:
            if str(error) != NO_STATEMENT:
                raise
    raise EvidenceError(NO_STATEMENT)


def stated_confidence(text: str, hedges: Mapping[str, float]) -> float:
    """Return the confidence, from 0 to 1, that an answer states of itself.

    It is what follows `Confidence:` or `Certainty:`, else the numbers that belong to such a word,
    as in `90% sure`; any other number is part of the answer. Raises EvidenceError where there is
    none, or it cannot be read for certain.

    Example:
        >>> stated_confidence("Oslo has 700,000 people. Confidence: 0,8", {})
        0.8
    """
    plain = _plain(text)
    if labelled := [_labelled(plain, found.start()) for found in _LABEL.finditer(plain)]:
        return agreed([(one, replied_confidence(one, hedges)) for one in labelled])
    return agreed(_read(plain, [one for one in stated_numbers(plain) if _is_sure(plain, one)]))


def _plain(text: str) -> str:
    """Return a text in lower case, with ASCII digits and without markup."""
    text = text.replace("，", ", ").replace("、", ", ")
    plain = ascii_digits(unicodedata.normalize("NFKC", text)).replace("·", ".")
    plain = _MARKUP.sub(" ", plain_words(plain)).replace("–", "-").replace("⁄", "/")
    return with_digits(re.sub(r"[^\S\n]+", " ", plain))


def _labelled(text: str, start: int) -> str:
    line = text[start : start + 2 * _CONTEXT].partition("\n")[0]
    return re.split(r"[.!?] ", line, maxsplit=1)[0]


def _statements(text: str, *, is_cut: bool) -> list[tuple[str, float | None]]:
    """Return the confidences that a reply states, by how it does, None where none can be read."""
    text = _LIST_MARK.sub("", text)
    found = stated_numbers(text)
    linked = [one for one in found if _belongs(text, one)]
    said = _read(text, linked or [_uncounted(text, one) for one in _leading(text, found)])
    if is_cut and found and found[-1].end == len(text.rstrip()):
        said.append((text.strip()[-_CONTEXT:], None))
    return said


def _read(text: str, found: Iterable[StatedNumber]) -> list[tuple[str, float | None]]:
    return [
        (text[max(0, one.start - 20) : one.end + 20].strip(), _value(text, one)) for one in found
    ]


def _value(text: str, one: StatedNumber) -> float | None:
    """Return a number's value unless its clause denies it or makes a bound of it."""
    before, behind = _clause(text, one)
    is_no_statement = (
        _NO_STATEMENT_BEFORE.search(before)
        or _NO_STATEMENT_BEHIND.search(behind)
        or _DOUBT.search(f"{before} {behind}")
        or _DOUBT_LABEL.search(text[max(0, one.start - _CONTEXT) : one.start])
        or behind.endswith("?")
    )
    return None if is_no_statement else one.value


def _clause(text: str, one: StatedNumber) -> tuple[str, str]:
    """Return what stands before and behind a number in its clause."""
    before = text[max(0, one.start - _CONTEXT) : one.start]
    behind = text[one.end : one.end + _CONTEXT]
    ends = [found.end() for found in CLAUSE_END.finditer(before) if found[0] != ":"]
    stop = next((found.end() for found in CLAUSE_END.finditer(behind)), len(behind))
    return before[ends[-1] if ends else 0 :], behind[:stop]


def _belongs(text: str, one: StatedNumber) -> bool:
    before = text[max(0, one.start - _CONTEXT) : one.start]
    return bool(_BEFORE.search(before) or _BEHIND.match(text[one.end : one.end + _CONTEXT]))


def _is_sure(text: str, one: StatedNumber) -> bool:
    before = text[max(0, one.start - _CONTEXT) : one.start]
    is_named = any(name in before for name in ("confiden", "certainty"))
    named = is_named and _BEFORE.search(before)
    return bool(named or _SURE.match(text[one.end : one.end + _CONTEXT]))


def _uncounted(text: str, one: StatedNumber) -> StatedNumber:
    """Return a number without value where it is a lone 0 or 1 that counts or numbers something."""
    if one.kind != "plain" or text[one.start : one.end] not in {"0", "1"}:
        return one
    before = text[max(0, one.start - _CONTEXT) : one.start]
    is_counting = _COUNTED.match(text, one.end) or _NUMBERED.search(before)
    return replace(one, value=None) if is_counting else one


def _leading(text: str, found: Sequence[StatedNumber]) -> Sequence[StatedNumber]:
    """Return the number that a reply begins with, where all others can be no confidence.

    A lone digit at the beginning may as well count something.
    """
    if len(found) < 2 or re.search(r"\w", text[: found[0].start]):
        return found
    first, *others = found
    is_clear = first.kind != "plain" or first.is_percent or "." in text[first.start : first.end]
    is_alone = all(one.kind == "plain" and one.value is None for one in others)
    return [first] if is_clear and is_alone else found


def _not_against(confidence: float, text: str, hedges: Mapping[str, float]) -> float:
    """Return a confidence in numbers unless the words beside it say the opposite."""
    try:
        in_words = hedged_confidence(_LIKELY.sub("", text), hedges)
    except EvidenceError:
        return confidence
    if (confidence - 0.5) * (in_words - 0.5) < 0:
        raise EvidenceError("the text contradicts itself: its words and its number differ")
    return confidence
