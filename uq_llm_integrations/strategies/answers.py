"""When two texts give the same answer: what is compared, in votes and for agreement."""

import re
import string
import unicodedata
from collections.abc import Callable

from uq_llm_integrations.errors import ConfigurationError, described
from uq_llm_integrations.methods.numerals import as_number, ascii_digits, canonical

Answer = Callable[[str], str]
"""Finds in a text what is compared: equal returns are the same answer."""

_INVISIBLE = "\u200b\u200e\u200f\u2060\u061c\ufeff"
_BEFORE = "¿¡,;…、，；"
_AFTER = ".,;…。、，；．｡､؛،۔।॥·።։׃"
_AFTER_WORDS = "!?:！？：؟"  # part of an answer behind anything else: 5!, x?, C:
_PAIRS = {
    '"': '"', "'": "'", "“": "”", "„": "“", "‘": "’", "«": "»", "»": "«", "‹": "›",
    "「": "」", "『": "』", "《": "》", "`": "`", "**": "**", "*": "*", "(": ")",
}  # fmt: skip  # a table of quotes
_CLOSING = tuple(_PAIRS.values())
_UNITS = "%‰°"

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def check_answer(answer: object) -> None:
    """Raise ConfigurationError for what cannot find an answer in a text."""
    if not callable(answer):
        raise ConfigurationError(
            f"answer is {described(answer)}; it must be a function from a text to what is compared"
        )


def normalised_answer(text: str) -> str:
    """Return a text without what never makes a difference between two answers.

    That is case, white space, the punctuation around it, and how Unicode composes its characters or
    how wide it makes them. A number is the same however it is written. All else counts: signs and
    symbols, accents, articles, and every line. For longer texts give a function of your own that
    finds the answer, such as the last number; `squad_answer` drops more.

    Example:
        >>> [normalised_answer(text) for text in (" “Café  Central”. ", "C++", "-5.0")]
        ['café central', 'c++', '-5']
    """
    said = _without_surroundings(unicodedata.normalize("NFC", text))
    quantity = _quantity(ascii_digits(said))
    return _folded(said) if quantity is None else quantity


def squad_answer(text: str) -> str:
    """Return a text by the rule of SQuAD's evaluation, https://arxiv.org/abs/1606.05250.

    It drops case, all ASCII punctuation and the articles, for short English answers in words: -5 is
    the same as 5, C++ as C#, and the grade A is nothing.

    Example:
        >>> squad_answer("The Eiffel-Tower.")
        'eiffeltower'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _folded(text: str) -> str:
    folded = unicodedata.normalize("NFD", text).casefold()
    plain = "".join(_of_usual_width(c) for c in folded)
    return " ".join(unicodedata.normalize("NFC", plain).split())


def _of_usual_width(character: str) -> str:
    if unicodedata.east_asian_width(character) in "FH":
        return unicodedata.normalize("NFKC", character)
    return character


def _quantity(text: str) -> str | None:
    """Return a number in the one way to write it, with its currency or percent; None for others."""
    before = text[:1] if _is_unit(text[:1]) else ""
    after = text[-1:] if _is_unit(text[-1:]) else ""
    number = as_number(text[len(before) : len(text) - len(after)].strip())
    return None if number is None else before + canonical(number) + after


def _is_unit(character: str) -> bool:
    return bool(character) and (character in _UNITS or unicodedata.category(character) == "Sc")


def _without_surroundings(text: str) -> str:
    """Return a text without white space and punctuation around it; punctuation alone stays."""
    said = text.strip().strip(_INVISIBLE).strip()
    shorter = _unpaired(_without_end(said.lstrip(_BEFORE)).strip())
    while shorter not in {said, ""}:
        said, shorter = shorter, _unpaired(_without_end(shorter.lstrip(_BEFORE)).strip())
    return said


def _without_end(text: str) -> str:
    core = text.rstrip(_AFTER + _AFTER_WORDS)
    is_of_words = len(core) > 1 and all(unicodedata.category(c)[0] in "LM" for c in core[-2:])
    return core if is_of_words or core.endswith(_CLOSING) else text.rstrip(_AFTER)


def _unpaired(text: str) -> str:
    """Return what stands between a pair of quotes, or one word between round brackets."""
    for opening, closing in _PAIRS.items():
        inner = text[len(opening) : -len(closing)]
        is_pair = inner and text.startswith(opening) and text.endswith(closing)
        if is_pair and opening not in inner and closing not in inner:
            return text if opening == "(" and re.search(r"[\s,;]", inner) else inner.strip()
    return text
