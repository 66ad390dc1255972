"""The grammar of condition text above comparisons: `and`, `or`, `not` and brackets.

One pass over the tokens, each of which is read once.
"""

import re
from collections.abc import Callable, Sequence

from uq_llm_integrations.errors import ConfigurationError, described
from uq_llm_integrations.strategies.conditions import MOST_LEVELS, And, Condition, Or

MOST_CHARACTERS = 20_000
"""How long the text of a condition may be."""

_TOKEN = re.compile(r"\s+|\w+|\"[^\"\n]*\"|'[^'\n]*'|.", re.DOTALL)
_MOST_SHOWN = 200

Comparing = Callable[[str], Condition]
"""Reads the text of one comparison."""


def read_condition(text: str, comparison: Comparing) -> Condition:
    """Return the condition that a text describes; `comparison` reads what is compared in it.

    Raises ConfigurationError for a text that is no condition, of more than 20,000 characters, or
    with more than 32 brackets and `not` around one comparison.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigurationError(
            f"the condition {shown(text)} has {len(text)} characters; allowed are {MOST_CHARACTERS}"
        )
    reader = _Reader(text, comparison)
    condition = reader.alternatives(0)
    if reader.next is not None:
        raise reader.error(f"{described(reader.next)} is one too many")
    return condition


def shown(text: str) -> str:
    """Return how a text is quoted in messages; of a long one, the beginning."""
    return repr(text) if len(text) <= _MOST_SHOWN else repr(text[:_MOST_SHOWN]) + " ..."


class _Reader:
    """Reads from left to right; `level` counts the brackets and the `not` around a part."""

    def __init__(self, text: str, comparison: Comparing) -> None:
        self._text, self._comparison = text, comparison
        self._tokens: Sequence[str] = _TOKEN.findall(text)
        self._place = 0
        self._skip_space()

    @property
    def next(self) -> str | None:
        """The token that comes next, None at the end."""
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def error(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"the condition {shown(self._text)} cannot be read: {why}")

    def alternatives(self, level: int) -> Condition:
        parts = [self._all(level)]
        while self._has("or"):
            parts.append(self._all(level))
        return Or(*parts) if len(parts) > 1 else parts[0]

    def _all(self, level: int) -> Condition:
        parts = [self._simple(level)]
        while self._has("and"):
            parts.append(self._simple(level))
        return And(*parts) if len(parts) > 1 else parts[0]

    def _simple(self, level: int) -> Condition:
        if level > MOST_LEVELS:
            raise self.error(f"allowed are {MOST_LEVELS} brackets and `not` around a comparison")
        if self._has("not"):
            return ~self._simple(level + 1)
        if not self._has("("):
            return self._compared()
        condition = self.alternatives(level + 1)
        if not self._has(")"):
            raise self.error("a bracket is not closed")
        return condition

    def _compared(self) -> Condition:
        """Read up to the word, or the closing bracket, behind a comparison."""
        start, opened = self._place, 0
        while self.next is not None and (opened or self.next not in {"and", "or", ")"}):
            opened += {"(": 1, ")": -1}.get(self.next, 0)
            self._place += 1
        text = "".join(self._tokens[start : self._place]).strip()
        if not text:
            raise self.error(f"a comparison is missing before {described(self.next or 'the end')}")
        return self._comparison(text)

    def _has(self, token: str) -> bool:
        """Go on behind a token where it comes next."""
        if self.next != token:
            return False
        self._place += 1
        self._skip_space()
        return True

    def _skip_space(self) -> None:
        if self.next is not None and self.next.isspace():
            self._place += 1
