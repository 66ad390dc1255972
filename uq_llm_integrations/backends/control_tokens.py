"""Which of a tokenizer's tokens control the model, and whether text from outside could write them.

Control tokens are the added tokens that are special by their flag, that the chat template writes,
or that are in brackets (`<tool_call>`, `[INST]`, `<|sep|>`). White space, words and the elements of
HTML, which some vocabularies have as added tokens, too, are text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Set
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

_BRACKETS = ("<>", "[]", "{}", "||", "<|>", "＜＞", "｜｜", "⟨⟩", "【】", "«»")
_HTML = re.compile(
    r"</?(a|abbr|b|blockquote|body|br|button|caption|center|cite|code|col|dd|del|div|dl|dt|em|font"
    r"|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|li|link|main|mark"
    r"|meta|nav|ol|option|p|pre|q|script|section|select|small|span|strike|strong|style|sub|summary"
    r"|sup|table|tbody|td|textarea|tfoot|th|thead|title|tr|tt|u|ul|var|video)\s*/?>"
)
_TEXT_ENDS = re.compile(r'(?:\s|\\[nrtbf])*"(?=[,:}\]])')
"""The end of a text within JSON, and white space before it, which templates strip."""
_EDITS = re.compile(r"""\b(?:replace|r?split|r?partition)\(\s*(?:'([^']+)'|"([^"]+)")""")
_IDENTIFIER = re.compile(r"[A-Za-z][\w-]*")


class Occurrence(NamedTuple):
    """Where a text has a control token."""

    start: int
    end: int
    token: str


class ControlTokens:
    """The control tokens of a tokenizer with its chat template, the source of which is `template`.

    `ids` has them by their texts.
    """

    def __init__(self, tokenizer: Any, source: object) -> None:
        self.source = source
        self.template = json.dumps(source) if isinstance(source, dict) else str(source or "")
        self.knows_tools = "tools" in self.template
        added = _added_tokens(tokenizer)
        self.ids = {
            one.content: number
            for number, one in added.items()
            if is_control(one.content, one.special, self.template)
        }
        self._escaped = _Finder({json.dumps(one, ensure_ascii=False)[1:-1] for one in self.ids})
        self._plain = _Finder(self.ids.keys())
        self._edits = [one or other for one, other in _EDITS.findall(self.template)]
        self._joins = bool(self.ids) and self._plain.begun_by(_literals(self.template))
        self._fold = _folding(tokenizer, added)
        folded = {self._fold(one) for one in self.ids} if self._fold else set[str]()
        self._folded = _Finder({*self.ids, *folded})

    @classmethod
    def of(cls, tokenizer: object) -> ControlTokens:
        """Return those of a tokenizer, read once for each template that it is given."""
        source = getattr(tokenizer, "chat_template", None)
        known = _known.get(tokenizer)
        if known is None or known.source is not source:
            known = _known[tokenizer] = cls(tokenizer, source)
        return known

    def may_come_of(self, *outside: object) -> bool:
        """Return whether data from outside could write one, by itself or with what is around it.

        It is rather True than False. What cannot is not looked at twice.
        """
        if not self.ids:
            return False
        text = written(outside)
        is_edited = bool(self._edits) and any(one in text for one in self._edits)
        if self._escaped.is_in(text, is_edited):
            return True
        if self._joins and any(map(self._plain.ends_or_continues, texts_of(outside))):
            return True
        return self._fold is not None and self.is_folded_in(text)

    def is_folded_in(self, text: str) -> bool:
        """Return whether the tokenizer's own normalisation of a text has one."""
        return bool(self._fold) and self._folded.is_in(self._fold(text), False)

    def found_in(self, text: str, outside: Set[int]) -> tuple[list[Occurrence], bool]:
        """Return those of a text that are not from outside, and whether there are others."""
        own = self._plain.all_in(text, outside)
        return own, own != self._plain.all_in(text, frozenset())

    def characters(self) -> set[str]:
        """Return the characters of which each has one at both ends."""
        found = set[str]()
        for one in self.ids:
            is_bracketed = not one[0].isalnum() and not one[-1].isalnum()
            found |= {c for c in one if not (is_bracketed and c.isalnum())}
        return {one for one in found if not one.isspace() and one not in '"\\'}

    def is_within(self, text: str) -> bool:
        """Return whether a text is a part of one."""
        return self._plain.has_part(text.strip())


class _Finder:
    """Finds any of several texts: the longest one that begins at a place."""

    def __init__(self, texts: Set[str]) -> None:
        self._texts = frozenset(texts)
        self._prefixes = {one[:end] for one in texts for end in range(1, len(one))}
        self._suffixes = {one[start:] for one in texts for start in range(1, len(one))}
        self._whole = "\0".join(texts)
        self._first = re.compile(_any({one[0] for one in texts}))
        pairs = _any({one[:2] for one in texts})
        self._hint = re.compile(f"{pairs}|(?:{self._first.pattern})(?={_TEXT_ENDS.pattern})")

    def is_in(self, text: str, is_edited: bool) -> bool:
        """Return whether JSON has one, or a text within it ends with the beginning of one."""
        for found in self._hint.finditer(text):
            start = found.start()
            end = start + 1
            while (part := text[start:end]) in self._prefixes and end < len(text):
                if part in self._texts or _TEXT_ENDS.match(text, end):
                    return True
                if is_edited and end > start + 1:
                    return True
                end += 1
            if part in self._texts:
                return True
        return False

    def all_in(self, text: str, without: Set[int]) -> list[Occurrence]:
        """Return all, from left to right, but for those with a character at certain places."""
        found = list[Occurrence]()
        for place in self._first.finditer(text):
            if found and place.start() < found[-1].end:
                continue
            if one := self._longest(text, place.start(), without):
                found.append(one)
        return found

    def _longest(self, text: str, start: int, without: Set[int]) -> Occurrence | None:
        longest, end = None, start + 1
        while end <= len(text) and end - 1 not in without:
            part = text[start:end]
            if part in self._texts:
                longest = Occurrence(start, end, part)
            if part not in self._prefixes:
                break
            end += 1
        return longest

    def begun_by(self, texts: list[str]) -> bool:
        """Return whether one of the texts ends with the beginning of one."""
        longest = max(map(len, self._prefixes), default=0)
        return any(
            text[-size:] in self._prefixes
            for text in texts
            for size in range(1, min(longest, len(text)) + 1)
        )

    def ends_or_continues(self, text: str) -> bool:
        """Return whether a text begins with the end of one, or is a part of one."""
        bare = text.strip()
        if not bare or self.has_part(bare):
            return bool(bare)
        longest = max(map(len, self._suffixes), default=0)
        sizes = range(1, min(longest, len(bare)) + 1)
        return any(bare[:size] in self._suffixes for size in sizes)

    def has_part(self, text: str) -> bool:
        """Return whether a text is a part of one."""
        return bool(text) and text in self._whole


_known: WeakKeyDictionary[object, ControlTokens] = WeakKeyDictionary()


def _any(texts: Set[str]) -> str:
    """Return the pattern for any of several texts of one character, or two."""
    following: dict[str, set[str]] = {}
    for one in texts:
        following.setdefault(one[0], set()).add(one[1:])
    parts = []
    for first, others in following.items():
        behind = "".join(re.escape(one) for one in sorted(others) if one)
        parts.append(re.escape(first) + (f"[{behind}]" if behind and "" not in others else ""))
    return "|".join(sorted(parts)) or "(?!)"


def written(data: object) -> str:
    """Return data as JSON, and what is none as Python writes it."""
    try:
        return json.dumps(data, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        return repr(data)


def is_role(name: object, value: object) -> bool:
    """Return whether a field is a message's role, which is structure, by a plain name."""
    return name == "role" and isinstance(value, str) and bool(_IDENTIFIER.fullmatch(value))


def texts_of(value: object) -> Iterator[str]:
    """Yield all texts of plain data but for roles."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, one in value.items():
            if not is_role(name, one):
                yield from texts_of(name)
                yield from texts_of(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts_of(one)


def _added_tokens(tokenizer: Any) -> Mapping[int, Any]:
    """Return a tokenizer's added tokens; mistral-common, which makes none of text, has none."""
    try:
        return dict(tokenizer.added_tokens_decoder)
    except (AttributeError, NotImplementedError):
        return {}


def is_control(text: str, is_special: bool, template: str) -> bool:
    """Return whether an added token controls the model."""
    bare = text.strip()
    if not bare or is_special:
        return bool(bare)
    if bare[0].isalnum() or not any(map(str.isalpha, bare)):
        return False
    if text in template:
        return True
    is_bracketed = len(bare) > 2 and bare[0] + bare[-1] in _BRACKETS
    return is_bracketed and " " not in bare and not _HTML.fullmatch(bare)


def _literals(template: str) -> list[str]:
    """Return the texts that a template itself writes, as far as its source shows them."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        parts = list(Environment(autoescape=True).lex(template))
    except TemplateSyntaxError:
        return []
    texts = [value for _, kind, value in parts if kind == "data"]
    return [*texts, *(value[1:-1] for _, kind, value in parts if kind == "string")]


def _folding(tokenizer: Any, added: Mapping[int, Any]) -> Any:
    """Return the tokenizer's normalisation, where what it changes could become a control token.

    Byte-pair encoding makes none of plain text; other models have them in their vocabulary.
    """
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None or fast.normalizer is None:
        return None
    makes_none = type(fast.model).__name__ == "BPE" and not fast.model.ignore_merges
    is_raw = not any(one.normalized for one in added.values())
    return None if makes_none and is_raw else fast.normalizer.normalize_str
