"""Conversations as tokens."""

from collections.abc import Sequence
from copy import copy

import pytest

from tests.backends.tiny_tokenizers import tiny
from uq_llm_integrations import (
    ConfigurationError,
    Conversation,
    InvalidRequestError,
    ScriptedBackend,
)
from uq_llm_integrations.backends.codec import TokenizerBackend, with_tool_descriptions
from uq_llm_integrations.backends.content_blocks import text_of


def decode(ids: Sequence[int]) -> str:
    """Bytes as tokens."""
    return bytes(ids).decode(errors="replace")


class ChatTokenizer:
    """Writes each turn as a line, with the template's source given."""

    def __init__(self, chat_template: str | None) -> None:
        self.chat_template = chat_template

    def apply_chat_template(self, turns, *, tools, **options) -> list[int]:
        if any(one["role"] == "critic" for one in turns):
            raise ValueError("there are no critics")
        lines = [f"{one['role']}: {one['content']}" for one in turns]
        return list("\n".join([*lines, *(one["function"]["name"] for one in tools or [])]).encode())


ADD = {"type": "function", "function": {"name": "add", "parameters": {}}}
USER = {"role": "user", "content": "1 + 2?"}


class TemplateBackend(TokenizerBackend, ScriptedBackend):
    """Has a tokenizer with a chat template."""

    _model = "org/name"

    def __init__(self, template: str | None) -> None:
        super().__init__(["a"])
        self._template = template

    async def tokenizer(self) -> ChatTokenizer:
        return ChatTokenizer(self._template)


async def chat(template: str | None, *messages, tools=()) -> str:
    return decode(await TemplateBackend(template).encode_chat(Conversation(messages, tools)))


async def test_a_prompt_may_be_a_turn_of_the_user():
    ids = await TemplateBackend("{{ messages }}").encode("Hi", chat=True)
    assert decode(ids) == "user: Hi"


async def test_a_template_that_knows_tools_gets_them():
    assert await chat("{{ tools }}", USER, tools=(ADD,)) == "user: 1 + 2?\nadd"


async def test_a_template_without_tools_gets_them_described():
    system, user = (await chat("{{ messages }}", USER, tools=(ADD,))).rsplit("\n", 1)
    assert system.startswith("system: You may call functions") and '"name": "add"' in system
    assert user == "user: 1 + 2?"


def test_tools_are_described_behind_what_the_system_says():
    first, _ = with_tool_descriptions(({"role": "system", "content": "Be brief."}, USER), (ADD,))
    assert first["content"].startswith("Be brief.\n\nYou may call functions")


def test_calls_and_their_results_are_written_out_where_a_template_has_no_tools():
    call = {"function": {"name": "add", "arguments": '{"a": 1}'}}
    calling = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "content": "3"}
    written, answer = with_tool_descriptions((calling, result), ())
    assert written["content"].startswith('<tool_call>\n{"name": "add"')
    assert answer == {"role": "user", "content": "<tool_response>\n3\n</tool_response>"}


@pytest.mark.parametrize(
    ("template", "messages", "error", "message"),
    [
        (None, [USER], ConfigurationError, "org/name has no chat template"),
        ("{{ messages }}", [], InvalidRequestError, "there are no messages"),
        (
            "{{ messages }}",
            [{"role": "critic", "content": "Boo."}],
            InvalidRequestError,
            "org/name's chat template refuses it: there are no critics",
        ),
    ],
)
async def test_a_conversation_that_cannot_be_written_is_refused(template, messages, error, message):
    with pytest.raises(error, match=message):
        await chat(template, *messages)


def test_the_text_of_a_message_is_that_of_its_blocks():
    blocks = [{"type": "text", "text": "Hello, "}, "you"]
    assert text_of({"role": "user", "content": blocks}) == "Hello, you"
    with pytest.raises(InvalidRequestError, match="'image' is not served: this model reads text"):
        text_of({"role": "user", "content": [{"type": "image"}]})


SIZE = {"type": "object", "properties": {"größe": {"type": "string", "description": "大きさ"}}}
MEASURE = {"type": "function", "function": {"name": "messen", "parameters": SIZE}}
MEASURED = {
    "type": "function",
    "function": {"name": "messen", "arguments": '{"größe": "5\\u2032"}'},
}


@pytest.mark.parametrize("template", ["{{ messages }}", "{{ messages }}{{ tools | tojson }}"])
async def test_what_is_not_ascii_reaches_the_prompt_as_it_is(template):
    tokenizer = copy(tiny("byte_level"))
    tokenizer.chat_template = template

    class Written(TemplateBackend):
        async def tokenizer(self):
            return tokenizer

    calling = {"role": "assistant", "content": None, "tool_calls": [MEASURED]}
    messages = (USER, calling, {"role": "tool", "content": "naïve"})
    ids = await Written(template).encode_chat(Conversation(messages, (MEASURE,)))
    written = tokenizer.decode(ids)
    assert all(text in written for text in ("größe", "大きさ", "5′", "naïve"))
    assert "\\u" not in written


async def test_arguments_that_are_no_json_are_written_as_they_are():
    broken = {"function": {"name": "add", "arguments": '{"a": '}}
    calling = {"role": "assistant", "content": "", "tool_calls": [broken]}
    assert '"arguments": "{\\"a\\": "' in await chat("{{ messages }}", USER, calling)


async def test_a_developer_is_a_system_where_the_template_has_none():
    said = {"role": "developer", "content": "Be brief."}
    assert await chat("{{ tools }}", said) == "system: Be brief."
    assert await chat("{{ tools }} developer", said) == "developer: Be brief."
