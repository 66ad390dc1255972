"""Texts and conversations to tokens and back by the plugin, as the embedded engine does it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from uq_llm_integrations.backends.content_blocks import plain_messages
from uq_llm_integrations.backends.server.contact import UQ, Facts
from uq_llm_integrations.backends.server.fleet import Fleet
from uq_llm_integrations.backends.server.wire import Json
from uq_llm_integrations.errors import EngineError, InvalidRequestError, described
from uq_llm_integrations.records import Conversation

T = TypeVar("T")
Ids = tuple[int, ...]

_KEPT, _KEPT_TOKENS = 2048, 256
"""How many decoded sequences are kept, and of how many tokens at most."""


class Encoding(Protocol):
    """Encodes and decodes by a server; all of it checked by who calls it."""

    async def encode(self, text: str) -> Ids:
        """Return the tokens of a prompt."""

    async def encode_continuation(self, text: str) -> Ids:
        """Return the tokens of text that follows other text."""

    async def encode_data(self, text: str, *, continues: bool) -> Ids:
        """Return the tokens of a text in which names of control tokens are text."""

    async def encode_chat(self, conversation: Conversation) -> Ids:
        """Return the tokens of a conversation."""

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens."""

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""


class PluginEncoding:
    """Encodes and decodes by the routes of the plugin."""

    def __init__(self, fleet: Fleet, facts: Facts) -> None:
        self._fleet, self._facts = fleet, facts
        self._decoded = Kept[tuple[str, list[str]]]()

    async def encode(self, text: str) -> Ids:
        """Return the tokens of a prompt."""
        return await self._ids({"text": text})

    async def encode_continuation(self, text: str) -> Ids:
        """Return the tokens of text that follows other text."""
        return await self._ids({"text": text, "continues": True})

    async def encode_data(self, text: str, *, continues: bool) -> Ids:
        """Return the tokens of a text in which names of control tokens are text."""
        return await self._ids({"text": text, "data": True, "continues": continues})

    async def encode_chat(self, conversation: Conversation) -> Ids:
        """Return the tokens of a conversation, which the server encodes as this package does."""
        body: dict[str, object] = {
            "messages": checked_messages(conversation),
            "continues": conversation.continues,
            "allow_special_tokens": conversation.allow_special_tokens,
        }
        if conversation.tools:
            body["tools"] = [dict(one) for one in conversation.tools]
        if conversation.template:
            body["chat_template_kwargs"] = dict(conversation.template)
        return await self._ids(body)

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return (await self._texts(token_ids))[0]

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""
        return list((await self._texts(token_ids))[1])

    async def _ids(self, body: Mapping[str, object]) -> Ids:
        answer = await self._fleet.answer(f"{UQ}/encode", body, waits=False)
        return given_ids(answer.get("token_ids"), self._facts)

    async def _texts(self, given: Sequence[int]) -> tuple[str, list[str]]:
        token_ids = tuple(given)
        if (kept := self._decoded.get(token_ids)) is not None:
            return kept
        body = {"token_ids": list(token_ids)}
        answer = await self._fleet.answer(f"{UQ}/decode", body, waits=False)
        text, texts = given_text(answer, "text"), answer.get("texts")
        if not isinstance(texts, list) or len(texts) != len(token_ids):
            raise EngineError(f"the server gave no text for each of {len(token_ids)} tokens")
        if not all(isinstance(one, str) for one in texts):
            raise EngineError("the server gave texts of tokens that are none")
        return self._decoded.put(token_ids, (text, texts))


class Kept(OrderedDict[Ids, T]):
    """The latest of what was found for short sequences of tokens."""

    def put(self, token_ids: Ids, found: T) -> T:
        """Keep something, and return it."""
        if len(token_ids) <= _KEPT_TOKENS:
            self[token_ids] = found
            if len(self) > _KEPT:
                self.popitem(last=False)
        return found


def checked_messages(conversation: Conversation) -> list[dict[str, object]]:
    """Return the messages with their contents as text; there must be one."""
    messages = plain_messages(conversation.messages)
    if not messages:
        raise InvalidRequestError("there are no messages; a conversation needs at least one")
    return [dict(one) for one in messages]


def given_ids(found: object, facts: Facts) -> Ids:
    """Return token ids that a server gave."""
    if not isinstance(found, list) or not all(type(one) is int for one in found):
        raise EngineError(f"the server gave no token ids but {described(found)}")
    if found and not 0 <= min(found) <= max(found) < facts.size:
        raise EngineError(f"the server gave a token beyond the {facts.size} there are")
    return tuple(found)


def given_text(answer: Json, name: str) -> str:
    """Return a text that a server gave."""
    found = answer.get(name)
    if not isinstance(found, str):
        raise EngineError(f"the server gave no {name} but {described(found)}")
    return found


def first_choice(answer: Json) -> Mapping[str, object]:
    """Return the first choice of an answer."""
    choices: Sequence[object] = answer.get("choices") or ()
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise EngineError("the server gave no choice")
    return choices[0]
