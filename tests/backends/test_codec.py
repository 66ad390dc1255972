"""Text from tokens, all at once and as they come."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations import (
    ConfigurationError,
    Conversation,
    InvalidRequestError,
    Request,
    ScriptedBackend,
)
from uq_llm_integrations.backends.codec import (
    GrowingTexts,
    IncrementalText,
    TokenizerBackend,
    split_text,
    text_of,
    top_texts,
    with_tool_descriptions,
)


def decode(ids: Sequence[int]) -> str:
    """Bytes as tokens."""
    return bytes(ids).decode(errors="replace")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_the_pieces_join_to_the_text(text):
    ids = list(text.encode())
    pieces = split_text(decode, ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_a_character_belongs_to_the_token_that_completes_it():
    assert split_text(decode, list("aé".encode())) == ["a", "", "é"]


def test_a_text_cut_within_a_character_shows_that():
    assert split_text(decode, list("aé".encode())[:2]) == ["a", "\ufffd"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_incremental_text_joins_to_the_text(text):
    incremental = IncrementalText(decode, list(b"prompt"))
    assert "".join(map(incremental.add, text.encode())) == text


async def test_the_texts_of_a_stream_are_those_of_all_its_tokens():
    texts, ids = GrowingTexts(ScriptedBackend(["unused"])), list("héllo".encode())
    pieces = [text for part in (ids[:1], ids[1:3], ids[3:]) for text in await texts.of(part)]
    assert pieces == ["h", "", "é", "l", "l", "o"]


async def test_a_trace_without_alternatives_has_no_texts_of_them():
    backend = ScriptedBackend(["a"])
    (candidate,) = await backend.generate(Request((65,)))
    assert await top_texts(backend, candidate.trace) == {}


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
    with pytest.raises(InvalidRequestError, match="type \\['image'\\] is not served"):
        text_of({"role": "user", "content": [{"type": "image"}]})
