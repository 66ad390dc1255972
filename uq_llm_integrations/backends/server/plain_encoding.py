"""Encoding by a server's own routes, which read names of control tokens as these tokens.

Which tokens control the model is not said by such a server. Here a name counts as one that is in
brackets as control tokens are and that is one token. In a text it is split, so that it stays text;
in a conversation, where nobody can split it behind the template, it is refused.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from uq_llm_integrations.backends.control_tokens import is_control, texts_of
from uq_llm_integrations.backends.server.encoding import Ids, Kept
from uq_llm_integrations.backends.server.token_routes import TokenRoutes
from uq_llm_integrations.backends.token_texts import split_text
from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.records import Conversation

_NAMES = re.compile(
    r"<[^<>\s]{1,80}>|\[[^\[\]\s]{1,80}\]|\{[^{}\s]{1,80}\}|[＜⟨【«]\S{1,80}?[＞⟩】»]"
)

_AT_ONCE = 32


class PlainEncoding:
    """Encodes and decodes by routes that know of no data; the chat route may, if it `is_safe`."""

    def __init__(self, routes: TokenRoutes, *, is_safe: bool) -> None:
        self._routes, self._is_safe = routes, is_safe
        self._texts = Kept[str]()
        self._names: dict[str, int | None] = {}

    async def encode(self, text: str) -> Ids:
        """Return the tokens of a prompt."""
        return await self._routes.ids(text, is_whole=True)

    async def encode_continuation(self, text: str) -> Ids:
        """Return the tokens of text that follows other text."""
        return await self._routes.ids(text, is_whole=False)

    async def encode_data(self, text: str, *, continues: bool) -> Ids:
        """Return the tokens of a text, with names of control tokens split in two."""
        named = await self._control_names([text])
        parts = list(_split(text, named)) if named else [text]
        found: list[int] = []
        for index, part in enumerate(parts):
            found += await self._routes.ids(part, is_whole=not continues and not index)
        if named and (set(found) & set(named.values()) or await self.decode(found) != text):
            raise InvalidRequestError(
                f"the text has {next(iter(named))!r}, which this server without the uq_llm plugin "
                "cannot keep as text; leave it out, or allow special tokens"
            )
        return tuple(found)

    async def encode_chat(self, conversation: Conversation) -> Ids:
        """Return the tokens of a conversation, or refuse one that a server would misread."""
        if not conversation.allow_special_tokens and not self._is_safe:
            said = (conversation.messages, conversation.tools, conversation.template)
            named = await self._control_names(texts_of(said))
            if named:
                raise InvalidRequestError(
                    f"a message has {next(iter(named))!r}, which this server without the uq_llm "
                    "plugin would read as a control token; leave it out, or allow special tokens"
                )
        return await self._routes.chat_ids(conversation)

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without those whose names are control tokens'."""
        text = await self._text(tuple(token_ids))
        named = set((await self._control_names([text])).values()) & set(token_ids)
        if not named:
            return text
        return await self._text(tuple(one for one in token_ids if one not in named))

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds: of every window that decides it, by the server."""
        await self._fetch({*((one,) for one in token_ids), *pairwise(token_ids)})
        known: dict[Ids, str] = {}

        def decode(window: list[int]) -> str:
            if not window:
                return ""
            found = known.get(tuple(window)) or self._texts.get(tuple(window))
            if found is None:
                raise _MissingError(tuple(window))
            return found

        while True:
            try:
                return split_text(decode, token_ids)
            except _MissingError as missing:
                known[missing.window] = await self._text(missing.window)

    async def _fetch(self, windows: Iterable[Ids]) -> None:
        due = [one for one in windows if one not in self._texts]
        for first in range(0, len(due), _AT_ONCE):
            await asyncio.gather(*map(self._text, due[first : first + _AT_ONCE]))

    async def _text(self, token_ids: Ids) -> str:
        if not token_ids:
            return ""
        if (kept := self._texts.get(token_ids)) is not None:
            return kept
        return self._texts.put(token_ids, await self._routes.text(token_ids))

    async def _control_names(self, texts: Iterable[str]) -> dict[str, int]:
        """Return the names of control tokens in some texts, with the tokens that they are."""
        found: dict[str, int] = {}
        for name in {one for text in texts for one in _NAMES.findall(text)}:
            if is_control(name, False, "") and (token := await self._named(name)) is not None:
                found[name] = token
        return found

    async def _named(self, name: str) -> int | None:
        if name not in self._names:
            ids = await self._routes.ids(name, is_whole=False)
            if len(self._names) > 4096:
                self._names.clear()
            self._names[name] = ids[0] if len(ids) == 1 else None
        return self._names[name]


class _MissingError(Exception):
    """The text of a window of tokens is not known yet."""

    def __init__(self, window: Ids) -> None:
        super().__init__(f"the text of {window} is missing")
        self.window = window


def _split(text: str, names: Iterable[str]) -> Iterator[str]:
    """Yield the parts of a text that is split behind the first character of each name."""
    start = 0
    for found in re.finditer("|".join(map(re.escape, names)), text):
        yield text[start : found.start() + 1]
        start = found.start() + 1
    yield text[start:]
