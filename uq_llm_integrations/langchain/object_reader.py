"""Reads the object out of a message, or out of its pieces as they come."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables.utils import AddableDict

from uq_llm_integrations.chat.objects import (
    call_arguments,
    check_object,
    missing_call,
    partial_object,
)  # fmt: skip  # a list of names
from uq_llm_integrations.chat.reply import ToolCall
from uq_llm_integrations.errors import described
from uq_llm_integrations.langchain.object_schema import ObjectSchema
from uq_llm_integrations.records import JsonMapping


class ObjectReader:
    """Reads objects that follow a schema: from the content, or `is_call`, from a call's arguments.

    A stream shows a dict as it grows, and an object of a class once it is whole. Raises
    HighUncertaintyError where the model abstains, IncompleteAnswerError where the answer ended
    before the object did, InvalidAnswerError where the call that was due is none, and
    OutputParserException where the object does not follow the class.
    """

    def __init__(self, due: ObjectSchema, *, is_call: bool) -> None:
        self._due, self._is_call = due, is_call

    def objects(self, messages: Iterator[AIMessage]) -> Iterator[Any]:
        """Yield what there is of the object, and the whole of it in the end."""
        growing = _Growing(self._due, is_call=self._is_call)
        for message in messages:
            yield from growing.add(message)
        yield from growing.end()

    async def aobjects(self, messages: AsyncIterator[AIMessage]) -> AsyncIterator[Any]:
        """Yield what `objects` does."""
        growing = _Growing(self._due, is_call=self._is_call)
        async for message in messages:
            for shown in growing.add(message):
                yield shown
        for shown in growing.end():
            yield shown

    def with_raw(self, messages: Iterator[AIMessage]) -> Iterator[AddableDict]:
        """Yield the message, and then its object, or the error in place of one."""
        growing = _Growing(self._due, is_call=self._is_call)
        for message in messages:
            growing.keep(message)
            yield AddableDict(raw=message)
        yield growing.outcome()

    async def awith_raw(self, messages: AsyncIterator[AIMessage]) -> AsyncIterator[AddableDict]:
        """Yield what `with_raw` does."""
        growing = _Growing(self._due, is_call=self._is_call)
        async for message in messages:
            growing.keep(message)
            yield AddableDict(raw=message)
        yield growing.outcome()


class _Growing:
    """The object of one answer, as far as it has come."""

    def __init__(self, due: ObjectSchema, *, is_call: bool) -> None:
        self._due, self._is_call = due, is_call
        self._messages: list[AIMessage] = []
        self._text = ""
        self._shown: Any = None

    def keep(self, message: AIMessage) -> None:
        self._messages.append(message)

    def add(self, message: AIMessage) -> Iterator[Any]:
        """Yield the object where it has grown."""
        self.keep(message)
        self._text += self._added(message)
        if self._due.cls is not None or not isinstance(message, AIMessageChunk):
            return
        partial = partial_object(self._text)
        if isinstance(partial, dict | list) and partial != self._shown:
            self._shown = partial
            yield partial

    def end(self) -> Iterator[Any]:
        """Yield the whole object, unless it was shown."""
        whole = self.whole()
        if self._shown is None or whole != self._shown:
            yield whole

    def outcome(self) -> AddableDict:
        """Return the whole object, or why there is none."""
        try:
            return AddableDict(parsed=self.whole(), parsing_error=None)
        except Exception as error:  # whatever it is, it is what the caller requested
            return AddableDict(parsed=None, parsing_error=error)

    def whole(self) -> Any:
        first, *rest = self._messages
        message: Any = first + rest if rest else first
        text = self._arguments(message) if self._is_call else _content(message)
        try:
            return self._due.read(text)
        except ValueError as error:
            said = f"the answer is no {self._due.name}: {error}; it says {described(text)}"
            raise OutputParserException(said, llm_output=text) from error

    def _added(self, message: AIMessage) -> str:
        if not self._is_call:
            return str(message.text)
        pieces = message.tool_call_chunks if isinstance(message, AIMessageChunk) else ()
        return "".join(one["args"] or "" for one in pieces if not one["index"])

    def _arguments(self, message: AIMessage) -> str:
        name, (finish_reason, uncertainty) = self._due.tool["function"]["name"], _metadata(message)
        for call in message.tool_calls:
            if call["name"] == name:
                return json.dumps(call["args"], ensure_ascii=False)
        for bad in message.invalid_tool_calls:
            cut = ToolCall(bad["name"] or "", bad["args"] or "", bad["id"] or "", is_cut=True)
            call_arguments(cut, finish_reason, uncertainty)
        raise missing_call(name, str(message.text), finish_reason, uncertainty)


def _content(message: AIMessage) -> str:
    text = str(message.text)
    check_object(text, *_metadata(message))
    return text


def _metadata(message: AIMessage) -> tuple[str | None, JsonMapping]:
    found = message.response_metadata
    return found.get("finish_reason"), found.get("uncertainty", {})
