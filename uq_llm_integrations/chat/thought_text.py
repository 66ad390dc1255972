"""Reasoning between tags, in a text that comes in pieces."""

from __future__ import annotations

from uq_llm_integrations.chat.live_text import LiveText, SpaceHeld

_THINK, _THINK_END = "<think>", "</think>"


class ThoughtText:
    """Separates reasoning before `</think>` from what follows it, in pieces of any size.

    What does not begin with `<think>`, nor `is_opened` in the prompt, is shown only once it is
    known what it is.
    """

    def __init__(self, *, is_opened: bool = False) -> None:
        self._text = LiveText((_THINK_END,))
        self._unknown: list[str] = []  # reasoning or content
        self._head = ""
        self._newlines = SpaceHeld("\n")
        self._is_opened, self._is_begun, self._is_said = is_opened, False, False

    def add(self, text: str, *, is_last: bool) -> tuple[str, str]:
        """Return what is added to the reasoning, and to what follows it."""
        if self._text.found:
            return "", self._after(text)
        shown = self._text.add(text)
        if self._text.found:
            self._is_opened, thought = True, self._opened(shown)
            return thought, self._after(self._text.rest.removeprefix(_THINK_END))
        thought = self._thinking(shown + (self._text.rest if is_last else ""))
        return thought, "" if self._is_opened or not is_last else "".join(self._unknown)

    def _thinking(self, text: str) -> str:
        """Return what is reasoning for certain: what follows a tag that opens it."""
        if self._is_opened:
            return self._opened(text)
        self._head = (self._head + text).lstrip()[: len(_THINK)]
        self._is_opened = self._head == _THINK
        if not self._is_opened:
            self._unknown.append(text)
            return ""
        return self._opened(text)

    def _opened(self, text: str) -> str:
        """Return reasoning without line breaks around it, and all that was not known to be some."""
        if not self._is_begun:
            text = "".join([*self._unknown, text]).lstrip()
            text = text.removeprefix(_THINK).lstrip("\n")
            self._unknown = []
            self._is_begun = bool(text)
        return self._newlines.add(text)

    def _after(self, text: str) -> str:
        """Return the text without the white space that separates it from the reasoning."""
        if not self._is_said:
            text = text.lstrip()
            self._is_said = bool(text)
        return text
