"""Numbers from 0 to 1 that a text states: decimals, percent, shares, ranges and scales."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from uq_llm_integrations.methods.numerals import as_number

Kind = Literal["plain", "share", "range", "scale"]

_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
    "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14,
    "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
    "hundred": 100,
}  # fmt: skip  # a table
_WORD = rf"(?:{'|'.join(sorted(_WORDS, key=len, reverse=True))})"
_PERCENT_IN_WORDS = re.compile(rf"\b(?:one |a )?({_WORD})(?:[ -]({_WORD}))?(?= per ?cent\b)")
_SHARE_IN_WORDS = re.compile(rf"\b({_WORD}) (out of|in) (?:a )?({_WORD})\b")

_NUMBER = re.compile(
    r"(?<![a-z\d.,])(?<![a-z]-)(?>[-+]?(?:\d+(?:[.,]\d+)*|[.,]\d+)(?:e[-+]?\d{1,3})?)"
    r"(?:(?P<percent> ?(?:%|percent\b|per ?cent\b|pct\b|prozent\b))|(?![a-z\d]|[.,][a-z\d.,]))"
)
_SHARE = {"/", "out of", "of", "in", "von", "sur", "out of a possible", "out of a total of"}
_RANGE = {"-", "to", "bis", "..", "..."}
_FROM = re.compile(r"\b(?:between|from)\W*$")
_SCALE = re.compile(r"\bscale (?:of|from)\W*$")


@dataclass(frozen=True)
class StatedNumber:
    """A number from `start` to `end` of a text; `value` is None where it is no share of 1.

    A `scale` names what other numbers lie on, from `low` to `value`.
    """

    start: int
    end: int
    value: float | None
    kind: Kind = "plain"
    is_percent: bool = False
    low: float = 0.0


def stated_numbers(text: str) -> list[StatedNumber]:
    """Return the numbers of a text in lower case with ASCII digits, as shares of 1.

    A range counts by its middle. What a number means on a scale that begins with 1 is not known.
    """
    merged: list[StatedNumber] = []
    for one in (_single(text, found) for found in _NUMBER.finditer(text)):
        joined = _joined(text, merged[-1], one) if merged else None
        if joined:
            merged.pop()
        merged.append(joined or one)
    scales = [one for one in merged if one.kind == "scale"]
    return [_as_share(one, scales) for one in merged if one.kind != "scale"]


def with_digits(text: str) -> str:
    """Return a text in lower case with its shares in words as digits: nine in ten is 9 in 10."""
    text = _PERCENT_IN_WORDS.sub(lambda one: str(_sum(one[1], one[2])), text)
    return _SHARE_IN_WORDS.sub(lambda one: f"{_sum(one[1])} {one[2]} {_sum(one[3])}", text)


def _sum(*words: str | None) -> int:
    return sum(_WORDS[word] for word in words if word)


def _single(text: str, found: re.Match[str]) -> StatedNumber:
    said = found[0].removesuffix(found["percent"] or "")
    number = as_number(said)
    value = None if number is None else float(number)
    is_scale = bool(_SCALE.search(text[max(0, found.start() - 30) : found.start()]))
    kind: Kind = "scale" if is_scale else "plain"
    return StatedNumber(found.start(), found.end(), value, kind, bool(found["percent"]))


def _joined(text: str, first: StatedNumber, second: StatedNumber) -> StatedNumber | None:
    """Return what two numbers are together, a share or a range; None where they are apart."""
    between = re.sub(r"[\s()]+", " ", text[first.end : second.start]).strip()
    is_from = bool(_FROM.search(text[max(0, first.start - 12) : first.start]))
    whole = replace(first, end=second.end)
    if between in _SHARE and not (between == "in" and _is_elsewhere(first, second)):
        return replace(whole, value=_share(first, second, between), kind="share")
    if between in _RANGE or (between == "and" and is_from):
        return _range(whole, first, second)
    return None


def _is_elsewhere(first: StatedNumber, second: StatedNumber) -> bool:
    """Return whether `in` is not between the two numbers of a share: 0.9 in 2020."""
    return not (float(first.value or 0).is_integer() and (second.value or 0) <= 1000)


def _share(first: StatedNumber, second: StatedNumber, between: str) -> float | None:
    if first.value is None or not second.value or first.kind != "plain":
        return None
    if first.is_percent or second.is_percent:
        return None
    if first.value and first.value + second.value == 100.0 and between == "/":
        return 0.5 if first.value == 50.0 else None  # it may well be odds: 40/60
    return first.value / second.value


def _range(whole: StatedNumber, first: StatedNumber, second: StatedNumber) -> StatedNumber:
    if (
        first.value is None
        or second.value is None
        or {first.kind, second.kind} & {"share", "range"}
    ):
        return replace(whole, value=None, kind="range")
    if first.value == second.value == 50.0:
        return replace(whole, value=0.5, kind="range")
    unit = 100.0 if second.is_percent else 1.0
    low, high = first.value / unit, second.value / unit
    if first.kind == "scale" or (low, high) in {(0.0, 1.0), (0.0, 10.0), (0.0, 100.0), (1.0, 10.0)}:
        return replace(whole, value=high, kind="scale", low=low)
    is_known = 0.0 <= low <= high <= 1.0 and (second.is_percent or not first.is_percent)
    return replace(whole, value=(low + high) / 2 if is_known else None, kind="range")


def _as_share(one: StatedNumber, scales: Sequence[StatedNumber]) -> StatedNumber:
    value = one.value
    if value is not None and one.kind == "plain":
        value = value / 100.0 if one.is_percent else _on_scale(value, scales)
    is_share = value is not None and 0.0 <= value <= 1.0
    return replace(one, value=value if is_share else None)


def _on_scale(value: float, scales: Sequence[StatedNumber]) -> float | None:
    if not scales:
        return value
    low, high = scales[0].low, scales[0].value
    if len(scales) > 1 or not high or low:
        return None
    return value / high
