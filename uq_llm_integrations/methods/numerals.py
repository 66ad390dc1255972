"""Numbers as people and models write them, in the digits of any script."""

import re
import unicodedata
from decimal import Decimal

_SIGNS = str.maketrans(
    {"٫": ".", "．": ".", "٬": ",", "٪": "%", "％": "%", "−": "-", "－": "-", "＋": "+", "⁄": "/"}
)

_WHOLE = r"(?:0|[1-9]\d*)"
_ENGLISH = r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?"
_INDIAN = r"[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?"
_SPACED = r"[1-9]\d{0,2}(?:[\u00a0\u2009\u202f'’]\d{3})+(?:[.,]\d+)?"
_CONTINENTAL = r"[1-9]\d{0,2}(?:(?:\.\d{3}){2,}(?:,\d+)?|\.\d{3},\d+)"
_SIGN, _EXPONENT = r"(?P<sign>[-+]?)", r"(?:e(?P<exponent>[-+]?\d{1,4}))?"

_FORMS = {
    re.compile(rf"{_SIGN}(?P<digits>{digits}){_EXPONENT}", re.IGNORECASE): point
    for digits, point in (
        (rf"{_WHOLE}(?:\.\d+)?|\.\d+", "."),
        (_ENGLISH, "."),
        (_INDIAN, "."),
        (rf"{_WHOLE},\d+", ","),
        (_CONTINENTAL, ","),
        (_SPACED, "., "),
    )
}
"""How a number can be written -> its decimal points. The first that fits counts, so that 1,234 has
a separator of thousands and 1,23 a decimal comma."""


def ascii_digits(text: str) -> str:
    """Return a text with the digits and the number signs of all scripts as those of ASCII.

    Example:
        >>> ascii_digits("٩٠٪")
        '90%'
    """
    return "".join(map(_ascii_digit, text.translate(_SIGNS)))


def _ascii_digit(character: str) -> str:
    if character.isascii():
        return character
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def as_number(text: str) -> Decimal | None:
    """Return the number that a text is, None where it is anything else.

    Thousands may be set apart. A number that begins with a superfluous 0 is a code.

    Example:
        >>> as_number("1,234.50"), as_number("0,8"), as_number("-1e3"), as_number("007")
        (Decimal('1234.50'), Decimal('0.8'), Decimal('-1E+3'), None)
    """
    for form, point in _FORMS.items():
        if found := form.fullmatch(text):
            digits = re.sub(rf"[^\d{point}]", "", found["digits"]).replace(",", ".")
            return Decimal(f"{found['sign']}{digits}e{found['exponent'] or 0}")
    return None


def canonical(number: Decimal) -> str:
    """Return the one way to write a number, exact; a long one has an exponent.

    Example:
        >>> canonical(Decimal("5.00")), canonical(Decimal("-0")), canonical(Decimal("1e30"))
        ('5', '0', '1e+30')
    """
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    plain = "".join(map(str, digits))
    kept = plain.rstrip("0")
    if not kept:
        return "0"
    exponent += len(plain) - len(kept)
    exact = Decimal((sign, tuple(map(int, kept)), exponent))
    return f"{exact:f}" if -30 < exponent <= 20 else str(exact).lower()
