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
        self._awaits_tag = True

    def add(self, text: str, *, is_last: bool) -> tuple[str, str]:
        """Return what is added to the reasoning, and to what follows it."""
        if self._text.found:
            return "", self._after(text)
        shown = self._text.add(text)
        if self._text.found:
            self._is_opened = True
            thought = self._opened(shown, is_last=True)
            return thought, self._after(self._text.rest.removeprefix(_THINK_END))
        thought = self._thinking(shown + (self._text.rest if is_last else ""), is_last=is_last)
        return thought, "" if self._is_opened or not is_last else "".join(self._unknown)

    def _thinking(self, text: str, *, is_last: bool) -> str:
        """Return what is reasoning for certain: what follows a tag that opens it."""
        if not self._is_opened:
            self._head = (self._head + text).lstrip()[: len(_THINK)]
            self._is_opened = self._head == _THINK
            if not self._is_opened:
                self._unknown.append(text)
                return ""
        return self._opened(text, is_last=is_last)

    def _opened(self, text: str, *, is_last: bool) -> str:
        """Return reasoning without its tag and the line breaks around it."""
        if self._awaits_tag:
            text = "".join([*self._unknown, text]).lstrip()
            self._unknown = []
            if not is_last and text != _THINK and _THINK.startswith(text):
                self._unknown = [text]
                return ""
            text, self._awaits_tag = text.removeprefix(_THINK), False
        if not self._is_begun:
            text = text.lstrip("\n")
            self._is_begun = bool(text)
        return self._newlines.add(text)

    def _after(self, text: str) -> str:
        """Return the text without the white space that separates it from the reasoning."""
        if not self._is_said:
            text = text.lstrip()
            self._is_said = bool(text)
        return text
