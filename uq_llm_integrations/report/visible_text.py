"""Texts as HTML that says all of what is in them, and runs none of it."""

from __future__ import annotations

import unicodedata
from html import escape

_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji are written with."""

_HIDDEN = {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"}
"""Categories of characters that are not seen, or that turn the direction of a text."""


def visible(text: str) -> str:
    r"""Return a text with signs in place of what would not be seen; lines stay lines.

    Example:
        >>> visible("a\x00b\u202ec")
        'a␀b⟨U+202E⟩c'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def safe_html(text: str) -> str:
    """Return a text as HTML, with hidden characters shown: it is text wherever it stands.

    Example:
        >>> safe_html("<b>")
        '&lt;b&gt;'
    """
    return escape(visible(text), quote=True)


def _visible(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or character in _JOINERS:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(character) in _HIDDEN:
        return f"⟨U+{code:04X}⟩"
    return character
