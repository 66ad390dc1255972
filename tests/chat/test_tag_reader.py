"""Replies in the Hermes format: a stream says what the whole of it does."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chat.reply_texts import CUTS, HERMES, cut_at, of_reply, of_stream
from tests.fuzzing import fuzz
from uq_llm_integrations.chat.tag_reader import TagReader

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


@fuzz()
@given(HERMES.map("".join), CUTS, st.booleans(), st.booleans(), st.booleans())
def test_a_stream_and_a_whole_reply_say_the_same(text, cuts, calls, thinks, is_due):
    tags = {"calls": calls, "thinks": thinks, "is_due": is_due}
    said = of_reply(TagReader(**tags).whole(text))
    assert of_stream(TagReader(**tags), cut_at(text, cuts)) == said


@fuzz()
@given(
    st.dictionaries(
        st.text('ab{}"\\', max_size=4), st.integers() | st.text(max_size=5), min_size=1
    ),
    st.data(),
)
def test_a_call_that_was_cut_is_never_whole(arguments, data):
    text = "<tool_call>" + json.dumps({"name": "add", "arguments": arguments})
    size = data.draw(st.integers(0, len(text) - 2))  # its last brace is the call's own
    for call in TagReader(calls=True, thinks=False).whole(text[:size]).tool_calls:
        assert not call.is_whole


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (f"\n\nHello {CALL}\n", "\n\nHello"),
        (f"{CALL}\n{CALL} done \n", "done"),
        (f"\n{CALL}", ""),
        ("  only spaces around  ", "  only spaces around  "),
        (f"a {CALL} b", "a  b"),
    ],
)
def test_white_space_around_calls_is_left_out(text, content):
    assert TagReader(calls=True, thinks=False).whole(text).content == content
    assert of_stream(TagReader(calls=True, thinks=False), list(text))[0] == content


@pytest.mark.parametrize("name", ["null", "[]", "1", '""', "{}"])
def test_a_name_that_is_no_text_names_no_tool(name):
    text = f'<tool_call>{{"name": {name}, "arguments": {{}}}}</tool_call>'
    assert of_reply(TagReader(calls=True, thinks=False).whole(text)) == (text, "", [])


@pytest.mark.parametrize(
    "unit", [" ", "[", "{", "<", "<tool_call>", '{"', "\n", "</think", '"\\"[']
)
def test_any_text_can_be_read_as_it_comes(unit):
    text = unit * (20_000 // len(unit))
    tags = {"calls": True, "thinks": True}
    assert of_stream(TagReader(**tags), list(text)) == of_reply(TagReader(**tags).whole(text))
    assert of_reply(TagReader(**tags).whole(f"<tool_call>{text}"))[2] == []


def test_arguments_nested_beyond_the_limit_are_no_whole_call():
    deep = "[" * 3_000 + "]" * 3_000
    text = f'<tool_call>{{"name": "add", "arguments": {{"a": {deep}}}}}</tool_call>'
    (call,) = TagReader(calls=True, thinks=False).whole(text).tool_calls
    assert (call.name, call.is_whole) == ("add", False)
