"""What of a text that comes in pieces can be shown, since nothing that follows takes it back."""

from __future__ import annotations

import re
from collections.abc import Sequence


class LiveText:
    """Shows a text up to the first of some marks; an end that may begin one waits.

    Each piece is looked through once, so that a stream takes time by its length.

    Example:
        >>> text = LiveText(("<call>",))
        >>> text.add("So: <ca"), text.add("ke> <call>x"), text.rest
        ('So: ', '<cake> ', '<call>x')
    """

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks = tuple(marks)
        self._pattern = re.compile("|".join(map(re.escape, marks))) if marks else None
        self._beginnings = {one[:n] for one in marks for n in range(1, len(one))}
        self._longest = max(map(len, self._beginnings), default=0)
        self._rest: list[str] = []
        self.found = False

    @property
    def rest(self) -> str:
        """What was not shown: an end that may begin a mark, or the first mark and what follows."""
        return "".join(self._rest)

    def add(self, text: str) -> str:
        """Return what can be shown by this piece."""
        if self.found:
            self._rest.append(text)
            return ""
        text = self.rest + text
        at = self._end(text)
        self._rest = [text[at:]]
        return text[:at]

    def _end(self, text: str) -> int:
        if self._pattern and (first := self._pattern.search(text)):
            self.found = True
            return first.start()
        start = max(len(text) - self._longest, 0)
        begun = (i for i in range(start, len(text)) if text[i:] in self._beginnings)
        return next(begun, len(text))


class SpaceHeld:
    """Holds back the white space at the end of a text until something follows it."""

    def __init__(self, characters: str | None = None) -> None:
        self._characters = characters
        self._held: list[str] = []

    @property
    def held(self) -> str:
        """The white space at the end."""
        return "".join(self._held)

    def add(self, text: str) -> str:
        """Return what can be shown."""
        said = text.rstrip(self._characters)
        if not said:
            self._held.append(text)
            return ""
        shown = self.held + said
        self._held = [text[len(said) :]]
        return shown


class LiveContent:
    """Shows content up to where a call may begin, without white space at its end."""

    def __init__(self, marks: Sequence[str]) -> None:
        self._text, self._space = LiveText(marks), SpaceHeld()

    def add(self, text: str) -> str:
        """Return what can be shown by this piece."""
        return self._space.add(self._text.add(text))


def continued_text(shown: str, whole: str) -> str:
    """Return a whole text so that it goes on from what was shown of it.

    White space at its beginning does not matter, and of a text that says something else, what was
    shown stands.
    """
    if whole.startswith(shown):
        return whole
    said, rest = shown.lstrip(), whole.lstrip()
    return shown + (rest.removeprefix(said) if rest.startswith(said) else "")
