"""The routes by which a server without our own encodes and decodes: one by one, as they are."""

from __future__ import annotations

from typing import Protocol

from uq_llm_integrations.backends.server.contact import CHAT, COMPLETIONS, Facts
from uq_llm_integrations.backends.server.encoding import (
    Ids,
    checked_messages,
    first_choice,
    given_ids,
    given_text,
)
from uq_llm_integrations.backends.server.fleet import Fleet
from uq_llm_integrations.backends.server.wire import Json
from uq_llm_integrations.records import Conversation


class TokenRoutes(Protocol):
    """Encodes and decodes as the server does by itself."""

    async def ids(self, text: str, *, is_whole: bool) -> Ids:
        """Return the tokens of a text; of a whole one with those that begin a prompt."""

    async def chat_ids(self, conversation: Conversation) -> Ids:
        """Return the tokens of a conversation."""

    async def text(self, token_ids: Ids) -> str:
        """Return the text of tokens."""


class TokenizeRoutes:
    """By `/tokenize` and `/detokenize`."""

    def __init__(self, fleet: Fleet, facts: Facts) -> None:
        self._fleet, self._facts = fleet, facts

    async def ids(self, text: str, *, is_whole: bool) -> Ids:
        """Return the tokens of a text."""
        answer = await self._ask("/tokenize", {"prompt": text, "add_special_tokens": is_whole})
        return given_ids(answer.get("tokens"), self._facts)

    async def chat_ids(self, conversation: Conversation) -> Ids:
        """Return the tokens of a conversation."""
        answer = await self._ask("/tokenize", chat_fields(conversation))
        return given_ids(answer.get("tokens"), self._facts)

    async def text(self, token_ids: Ids) -> str:
        """Return the text of tokens."""
        return given_text(await self._ask("/detokenize", {"tokens": list(token_ids)}), "prompt")

    async def _ask(self, path: str, body: dict[str, object]) -> Json:
        body = {"model": self._facts.model, **body}
        return await self._fleet.answer(path, body, waits=False)


class CompletionRoutes:
    """By the two routes that every router passes on, at the price of a token each."""

    def __init__(self, fleet: Fleet, facts: Facts) -> None:
        self._fleet, self._facts = fleet, facts

    async def ids(self, text: str, *, is_whole: bool) -> Ids:
        """Return the tokens of a text."""
        body = {"prompt": text, "add_special_tokens": is_whole, "max_tokens": 1}
        answer = await self._ask(COMPLETIONS, {**body, "return_token_ids": True})
        return given_ids(first_choice(answer).get("prompt_token_ids"), self._facts)

    async def chat_ids(self, conversation: Conversation) -> Ids:
        """Return the tokens of a conversation; tools stay in the prompt, and are not called."""
        body = {**chat_fields(conversation), "max_tokens": 1, "return_token_ids": True}
        if conversation.tools:
            body["tool_choice"] = "none"
        if conversation.allow_special_tokens and self._facts.has_plugin:
            body["allow_special_tokens"] = True
        answer = await self._ask(CHAT, body)
        return given_ids(answer.get("prompt_token_ids"), self._facts)

    async def text(self, token_ids: Ids) -> str:
        """Return the text of tokens."""
        body = {"prompt": list(token_ids), "echo": True, "max_tokens": 0}
        answer = await self._ask(COMPLETIONS, body)
        return given_text(dict(first_choice(answer)), "text")

    async def _ask(self, path: str, body: dict[str, object]) -> Json:
        body = {"model": self._facts.model, "temperature": 0.0, **body}
        if self._facts.has_plugin:
            body["uncertainty"] = False
        return await self._fleet.answer(path, body, waits=False)


def chat_fields(conversation: Conversation) -> dict[str, object]:
    """Return the fields of a conversation, as `/tokenize` and the chat route have them."""
    body: dict[str, object] = {
        "messages": checked_messages(conversation),
        "add_generation_prompt": not conversation.continues,
        "continue_final_message": conversation.continues,
    }
    if conversation.tools:
        body["tools"] = [dict(one) for one in conversation.tools]
    if conversation.template:
        body["chat_template_kwargs"] = dict(conversation.template)
    return body
