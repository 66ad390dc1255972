"""Calls that were cut, or whose arguments are no object, are invalid in streams and at once."""

import json

import pytest
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool

from tests.langchain.scripted_chat import call, scripted, whole


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


MADE = call("add", a=1, b=2)


def read(said: str, verb: str = "invoke", choice=None, **options):
    chat = scripted(said, **options).bind_tools([add], tool_choice=choice)
    return chat.invoke("?") if verb == "invoke" else whole(chat.stream("?"))


def invalid(message):
    return [(one["name"], one["args"], one["error"]) for one in message.invalid_tool_calls]


VERBS = pytest.mark.parametrize("verb", ["invoke", "stream"])


@VERBS
@pytest.mark.parametrize("choice", ["any", "add", None])
@pytest.mark.parametrize(
    ("end", "arguments"),
    [('"b": 2', '{"a": 1, "b": 2'), ('"a": ', '{"a":'), ('"arguments"', ""), ('"add"', "")],
)
def test_a_call_that_was_cut_is_invalid_and_says_why(verb, choice, end, arguments):
    message = read(MADE, verb, choice, max_tokens=MADE.index(end) + len(end))
    ((name, text, reason),) = invalid(message)
    assert (name, text) == ("add", arguments)
    assert "max_tokens" in reason and "'length'" in reason
    assert (message.tool_calls, message.content) == ([], "")
    assert message.response_metadata["finish_reason"] == "length"


@VERBS
@pytest.mark.parametrize("size", [3, 14, 20])
def test_a_forced_call_that_was_cut_before_its_name_is_invalid(verb, size):
    message = read(MADE, verb, "add", max_tokens=size)
    ((name, text, reason),) = invalid(message)
    assert (name, text) == ("add", MADE[:size])
    assert "max_tokens" in reason
    assert (message.tool_calls, message.content) == ([], "")


@VERBS
@pytest.mark.parametrize("arguments", ["[1]", '"x"', "3", "true", "0", "[]"])
def test_arguments_that_are_no_object_are_invalid(verb, arguments):
    message = read(f'<tool_call>{{"name": "add", "arguments": {arguments}}}</tool_call>', verb)
    ((name, text, reason),) = invalid(message)
    assert (name, text) == ("add", arguments)
    assert "JSON object" in reason
    assert message.tool_calls == []


@VERBS
def test_arguments_that_are_nested_too_deep_are_invalid(verb):
    deep = "[" * 2_000 + "]" * 2_000
    message = read(f'<tool_call>{{"name": "add", "arguments": {{"a": {deep}}}}}</tool_call>', verb)
    ((_, _, reason),) = invalid(message)
    assert message.tool_calls == [] and "100 objects and arrays" in reason


@VERBS
def test_whole_calls_before_a_cut_one_can_be_made(verb):
    message = read(MADE + MADE, verb, max_tokens=len(MADE) + 50)
    assert [one["args"] for one in message.tool_calls] == [{"a": 1, "b": 2}]
    assert len(message.invalid_tool_calls) == 1


@VERBS
def test_a_call_that_is_whole_but_for_its_tag_can_be_made(verb):
    message = read(MADE, verb, max_tokens=len(MADE) - 4)
    assert message.tool_calls[0]["args"] == {"a": 1, "b": 2}
    assert message.response_metadata["finish_reason"] == "tool_calls"


@VERBS
def test_the_finish_reason_says_that_calls_were_made(verb):
    assert read(MADE, verb).response_metadata["finish_reason"] == "tool_calls"
    assert read("Hi.", verb).response_metadata["finish_reason"] == "stop"


@VERBS
def test_a_stop_string_within_a_call_cuts_it(verb):
    message = read(MADE, verb, stop=['"b"'])
    ((name, _, reason),) = invalid(message)
    assert name == "add" and "stop string" in reason
    assert message.response_metadata["finish_reason"] == "stop"


def test_pieces_add_up_in_any_way_to_a_message_as_any_other():
    chat = scripted(MADE).bind_tools([add])
    pieces = list(chat.stream("?"))
    joined = AIMessageChunk("")
    for one in pieces:
        joined = joined + one
    generations = [ChatGenerationChunk(message=one) for one in pieces]
    listed = (generations[0] + generations[1:]).message
    for one in (joined, whole(pieces), listed):
        assert type(one) is AIMessageChunk
        assert type(message_chunk_to_message(one)) is AIMessage
        assert [one["args"] for one in one.tool_calls] == [{"a": 1, "b": 2}]


def test_a_piece_is_serialized_as_any_other():
    piece = next(iter(scripted("Hi.").stream("?")))
    loaded = load(dumpd(piece), allowed_objects="messages")
    assert type(loaded) is AIMessageChunk
    assert loaded.content == piece.content


CUT = [MADE[:-20], '<tool_call>{"name": "add"', '<tool_call>{"name": "add", "arguments": {"a": 1']


@pytest.mark.parametrize("said", CUT)
def test_a_cut_call_is_not_mended_where_others_add_up_copies_of_the_pieces(said):
    pieces = scripted(said).bind_tools([add]).stream("?")
    copies = [load(dumpd(one), allowed_objects="messages") for one in pieces]
    assert all(type(one) is AIMessageChunk for one in copies)
    joined = whole(copies)
    assert joined.tool_calls == []
    assert [one["name"] for one in joined.invalid_tool_calls] == ["add"]


def test_the_last_piece_alone_has_calls():
    *before, last = scripted(MADE).bind_tools([add]).stream("?")
    assert not any(one.tool_call_chunks for one in before)
    assert [one["args"] for one in last.tool_calls] == [{"a": 1, "b": 2}]


async def test_events_have_no_mended_calls():
    chat = scripted(MADE, max_tokens=len(MADE) - 20).bind_tools([add])
    stream = chat.stream_events("?", version="v3")
    message = stream.output
    assert message.tool_calls == []
    assert "max_tokens" in message.invalid_tool_calls[0]["error"]
    assert json.dumps(message.invalid_tool_calls[0]["args"])
