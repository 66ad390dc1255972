"""Text from outside on its way through a chat template, so that what comes out says whose it is.

The template sees such text as it is: it compares, searches, splits and strips it. What it writes
has, in the place of the characters that control tokens consist of, private ones that nothing else
in the conversation has. Whatever does not know of this class (JSON, `join`, formatting) writes the
private ones, too, so that no way around leads to a control token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Self, SupportsIndex

from uq_llm_integrations.errors import InvalidRequestError

_PRIVATE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
"""Unicode's characters for private use."""


class OutsideText(str):
    """A text that reads as `original` and is written as itself, of the same length."""

    original: str

    def __new__(cls, original: str, written: str) -> Self:
        """Return a text for a template."""
        text = super().__new__(cls, written)
        text.original = original
        return text

    def __str__(self) -> str:
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __eq__(self, other: object) -> bool:
        return bool(self.original == _original(other))

    def __ne__(self, other: object) -> bool:
        return bool(self.original != _original(other))

    def __hash__(self) -> int:
        return hash(self.original)

    def __contains__(self, part: object) -> bool:
        return _original(part) in self.original

    def __add__(self, other: str) -> OutsideText:
        return OutsideText(self.original + _original(other), super().__add__(other))

    def __radd__(self, other: str) -> OutsideText:
        return OutsideText(_original(other) + self.original, other + _written(self))

    def __getitem__(self, key: SupportsIndex | slice) -> OutsideText:
        return OutsideText(self.original[key], super().__getitem__(key))

    def __iter__(self) -> Iterator[OutsideText]:
        return (self[index] for index in range(len(self)))

    def startswith(self, *given: Any) -> bool:
        """Return whether the original does."""
        return self.original.startswith(*given)

    def endswith(self, *given: Any) -> bool:
        """Return whether the original does."""
        return self.original.endswith(*given)

    def find(self, *given: Any) -> int:
        """Return where the original has a part."""
        return self.original.find(*given)

    def rfind(self, *given: Any) -> int:
        """Return where the original has a part last."""
        return self.original.rfind(*given)

    def index(self, *given: Any) -> int:
        """Return where the original has a part."""
        return self.original.index(*given)

    def rindex(self, *given: Any) -> int:
        """Return where the original has a part last."""
        return self.original.rindex(*given)

    def count(self, *given: Any) -> int:
        """Return how often the original has a part."""
        return self.original.count(*given)

    def lstrip(self, chars: str | None = None) -> OutsideText:
        """Return the text without what the original begins with."""
        return self[len(self) - len(self.original.lstrip(chars)) :]

    def rstrip(self, chars: str | None = None) -> OutsideText:
        """Return the text without what the original ends with."""
        return self[: len(self.original.rstrip(chars))]

    def strip(self, chars: str | None = None) -> OutsideText:
        """Return the text without what the original begins and ends with."""
        return self.rstrip(chars).lstrip(chars)

    def removeprefix(self, prefix: str) -> OutsideText:
        """Return the text without what the original may begin with."""
        return self[len(self) - len(self.original.removeprefix(prefix)) :]

    def removesuffix(self, suffix: str) -> OutsideText:
        """Return the text without what the original may end with."""
        return self[: len(self.original.removesuffix(suffix))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Any]:
        """Return the parts where the original has the separator."""
        return self._parts(self.original.split(sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Any]:
        """Return the same, counted from the end."""
        return self._parts(self.original.rsplit(sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[Any]:
        """Return the lines of the original."""
        lines = self.original.splitlines(keepends=True)
        whole = self._parts(lines, "")
        if keepends:
            return whole
        bare = [len(one) for one in self.original.splitlines()]
        return [one[:size] for one, size in zip(whole, bare, strict=True)]

    def partition(self, sep: str) -> tuple[Any, Any, Any]:
        """Return what is before the separator, it, and what is behind."""
        return self._around(self.original.partition(sep))

    def rpartition(self, sep: str) -> tuple[Any, Any, Any]:
        """Return the same for the last separator."""
        return self._around(self.original.rpartition(sep))

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> OutsideText:
        """Return the text with another part wherever the original has one."""
        if not old:
            written = super().replace(old, new, count)
            return OutsideText(self.original.replace(old, _original(new), count), written)
        parts = self.split(old, count)
        original = _original(new).join(one.original for one in parts)
        return OutsideText(original, _written(new).join(map(_written, parts)))

    def _parts(self, parts: list[str], sep: str | None) -> list[OutsideText]:
        found, end = [], 0
        for part in parts:
            start = self.original.index(part, end) if sep is None else end
            end = start + len(part)
            found.append(self[start:end])
            end += len(sep or "")
        return found

    def _around(self, parts: tuple[str, str, str]) -> tuple[OutsideText, OutsideText, OutsideText]:
        first, second = len(parts[0]), len(parts[0]) + len(parts[1])
        return self[:first], self[first:second], self[second:]


class PrivateAlphabet:
    """Private characters that stand for others, none of which is in the texts at hand."""

    def __init__(self, around: str) -> None:
        used = set(around)
        self._free = (c for c in map(chr, chain(*_PRIVATE)) if c not in used)
        self._original: dict[int, str] = {}
        self._private: dict[str, str] = {}

    def of(self, character: str) -> str:
        """Return the private character for another one."""
        if character not in self._private:
            private = next(self._free, None)
            if private is None:
                raise InvalidRequestError(
                    "the messages have all of Unicode's private characters; allowed are fewer"
                )
            self._private[character] = private
            self._original[ord(private)] = character
        return self._private[character]

    def read(self, written: str) -> tuple[str, set[int]]:
        """Return a written text with the originals again, and where they are."""
        private = {chr(one) for one in self._original}
        places = {index for index, one in enumerate(written) if one in private}
        return written.translate(self._original), places


def mapped(value: object, change: Callable[[str], str]) -> Any:
    """Return plain data with each text changed, those of its keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {mapped(key, change): mapped(one, change) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [mapped(one, change) for one in value]
    return value


def _original(text: Any) -> Any:
    return text.original if isinstance(text, OutsideText) else text


def _written(text: str) -> str:
    return str.__str__(text)
