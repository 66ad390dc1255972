"""The words of a text, in any script."""

import unicodedata

# Scripts that put no spaces between words; each of their characters counts as a word.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31F0, 0x31FF),  # Katakana
    (0x3400, 0x4DBF),  # Chinese characters, as are the last three
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def words(text: str) -> list[str]:
    """Return the words of a text in any script, without case and punctuation.

    A character is a word of its own in scripts that put no spaces between words, and so is an emoji
    or another symbol beyond ASCII.

    Example:
        >>> words("Don't go to Zürich, 東京 is nicer 🙂!")
        ['don', 't', 'go', 'to', 'zürich', '東', '京', 'is', 'nicer', '🙂']
    """
    plain = unicodedata.normalize("NFC", text).casefold()
    return "".join(map(_spaced, plain)).split()


def spaced(text: str) -> str:
    """Return a text with spaces around what is a word of its own, for readers that split at them.

    White space alone becomes a word.

    Example:
        >>> spaced("I love 東京").split()
        ['I', 'love', '東', '京']
    """
    return "".join(f" {c} " if _is_word(c) else c for c in text) if text.strip() else repr(text)


def _is_word(character: str) -> bool:
    return not character.isascii() and _spaced(character) == f" {character} "


def _spaced(character: str) -> str:
    """Return a character with the space that it has around it, as part of a word or alone."""
    if character.isascii():
        return character if character.isalnum() else " "
    if any(first <= ord(character) <= last for first, last in _UNSPACED):
        return f" {character} " if unicodedata.category(character)[0] in "LMN" else " "
    if "\ufe00" <= character <= "\ufe0f" or unicodedata.category(character) == "Cf":
        return ""  # says how its neighbour looks
    kind = unicodedata.category(character)[0]
    return character if kind in "LMN" else f" {character} " if kind == "S" else " "
