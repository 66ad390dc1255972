"""The text that each token adds, all at once and as tokens come.

A character belongs to the token that completes it: the tokens before add an empty text, in a stream
and in the whole. So the texts of an answer's tokens join to its content, for every tokenizer.
Behind that come only tokens that the content does not have: a stop string, and special tokens such
as the end of the turn, whose text is their name.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from uq_llm_integrations.records import Candidate

Decode = Callable[[list[int]], str]

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"

# So many tokens of the prompt decide at most how the first token's text begins.
_PROMPT_TOKENS = 8

# So many texts before a token decide what it adds, and one more than that is kept: some tokenizers
# drop the space before the first token of what they decode.
_TEXTS_BEFORE = 3


class TokenReader(Protocol):
    """What can say which texts tokens have: any backend."""

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""


def text_decoder(tokenizer: Any, *, skip_special_tokens: bool = True) -> Decode:
    """Return what decodes tokens as vLLM does: transformers' clean-up of spaces is left out."""
    fast = getattr(tokenizer, "backend_tokenizer", None)

    def decode(token_ids: list[int]) -> str:
        text: str = (fast or tokenizer).decode(token_ids, skip_special_tokens=skip_special_tokens)
        return text

    return decode


def split_text(
    decode: Decode, token_ids: Sequence[int], prompt_ids: Sequence[int] = ()
) -> list[str]:
    """Return the text that each token adds behind the prompt."""
    text = IncrementalText(decode, prompt_ids)
    return [text.add(token) for token in token_ids]


def named_texts(tokenizer: Any, token_ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds, where a special one adds its name."""
    decode = text_decoder(tokenizer)
    return [
        text
        or ("" if decode([token]) else str(tokenizer.decode([token], skip_special_tokens=False)))
        for token, text in zip(token_ids, split_text(decode, token_ids), strict=True)
    ]


class IncrementalText:
    """The text of a sample's tokens as they come, by a `decode` function.

    It goes over a short window: the tokens of the last text, and those that wait for a character to
    be complete. Where bytes that are no character change the text before them, it begins anew with
    the last token. All of this is as in vLLM.
    """

    def __init__(self, decode: Decode, prompt_ids: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._start = self._read = 0
        for token in min(_ends(prompt_ids), key=lambda end: _broken(decode(end)), default=()):
            self.add(token)

    def add(self, token: int) -> str:
        """Return the text that a token adds; a character comes with the token that completes it."""
        self._ids.append(token)
        before = self._decode(self._ids[self._start : self._read])
        after = self._decode(self._ids[self._start :])
        if after.endswith(_INCOMPLETE) or len(after.encode()) <= len(before.encode()):
            return ""
        if not after.startswith(before):
            self._ids, self._start, self._read = [], 0, 0
            return self.add(token)
        self._start, self._read = self._read, len(self._ids)
        return after[len(before) :]


class GrowingTexts:
    """The text that each token of an answer adds behind its prompt, however many come at a time."""

    def __init__(self, backend: TokenReader, prompt_ids: Sequence[int] = ()) -> None:
        self._backend, self._prompt_ids = backend, prompt_ids
        self._ids: tuple[int, ...] = ()
        self._texts: list[str] = []
        self._known = 0
        self._others: dict[tuple[tuple[int, ...], int, bool], str] = {}

    @property
    def latest(self) -> list[str]:
        """The texts of the tokens that came last."""
        return self._texts[self._known :]

    async def of(self, token_ids: Sequence[int]) -> list[str]:
        """Return the texts of the tokens that came next."""
        before = self._ids[_first_before(self._texts, len(self._ids)) :]
        if not self._ids:
            before = await self._prompt_end()
        self._ids, self._known = (*before, *token_ids), len(before)
        self._texts = await self._backend.token_texts(self._ids)
        return self.latest

    async def alternatives(self, rows: Sequence[Sequence[int]]) -> list[list[str]]:
        """Return what other tokens would add in the places of those that came last."""
        return [
            [await self._in_place(index, token) for token in row]
            for index, row in enumerate(rows, self._known)
        ]

    async def _in_place(self, index: int, token: int) -> str:
        if token == self._ids[index]:
            return self._texts[index]
        first = _first_before(self._texts, index)
        before = self._ids[first:index]
        # Where no character is begun, only whether there is text before makes a difference.
        is_begun = index > first and not self._texts[index - 1]
        key = (before if is_begun else (), token, any(self._texts[first:index]))
        if key not in self._others:
            texts = await self._backend.token_texts((*before, token))
            self._others[key] = texts[-1]
        return self._others[key]

    async def _prompt_end(self) -> tuple[int, ...]:
        ends = list(_ends(self._prompt_ids))
        broken = [_broken(await self._backend.decode(end)) for end in ends]
        return tuple(ends[broken.index(min(broken))]) if ends else ()


async def read_texts(backend: TokenReader, candidate: Candidate) -> GrowingTexts:
    """Return a candidate's texts as `latest`.

    Text that was given rather than generated has no space of its own where the prompt ends.
    """
    for prompt_ids in (candidate.prompt_ids, ()):
        texts = GrowingTexts(backend, prompt_ids)
        if "".join(await texts.of(candidate.token_ids)).startswith(candidate.text):
            break
    return texts


async def candidate_texts(backend: TokenReader, candidate: Candidate) -> list[str]:
    """Return the text that each token of a candidate adds to its text."""
    return (await read_texts(backend, candidate)).latest


def _ends(prompt_ids: Sequence[int]) -> Iterator[list[int]]:
    """Yield ever fewer of a prompt's last tokens: more than that may begin within a character."""
    last = list(prompt_ids[-_PROMPT_TOKENS:])
    return (last[first:] for first in range(len(last)))


def _broken(text: str) -> int:
    return text.count(_INCOMPLETE)


def _first_before(texts: Sequence[str], end: int) -> int:
    """Return where the tokens begin that decide what one at `end` adds: always behind a text."""
    shown = 0
    for first in range(end, 0, -1):
        if texts[first - 1]:
            if shown == _TEXTS_BEFORE:
                return first
            shown += 1
    return 0
