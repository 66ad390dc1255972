"""Replies with tags, read without a tokenizer, and the ways to choose a tool."""

import json

import pytest

from uq_llm_integrations import errors
from uq_llm_integrations.chat.parsers import TagReader, tool_choice_of
from uq_llm_integrations.chat.reply import Reply

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


def read(text: str, **tags) -> Reply:
    return TagReader(**({"calls": True, "thinks": True} | tags)).whole(text)


def streamed(text: str, size: int, **tags) -> tuple[str, str, list[tuple[str, str]]]:
    reader = TagReader(**({"calls": True, "thinks": True} | tags))
    cuts = [text[i : i + size] for i in range(0, len(text), size)]
    parts = [reader.part(cut, (), is_last=i == len(cuts) - 1) for i, cut in enumerate(cuts)]
    calls = [(call.name, call.arguments) for part in parts for call in part.calls]
    return (
        "".join(part.content for part in parts),
        "".join(part.reasoning for part in parts),
        calls,
    )


def test_text_calls_and_reasoning_are_separated():
    reply = read(f"<think>Hm.</think>Let me see. {CALL}")
    assert (reply.reasoning, reply.content) == ("Hm.", "Let me see.")
    (call,) = reply.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 1})


def test_each_call_has_an_id_of_its_own():
    first, second = read(CALL + CALL).tool_calls
    assert first.id != second.id


def test_a_call_that_the_model_did_not_close_counts():
    (call,) = read(CALL.removesuffix("\n</tool_call>")).tool_calls
    assert call.name == "add"


@pytest.mark.parametrize("inner", ["no json", '["a list"]', '{"arguments": {}}'])
def test_a_call_that_is_none_stays_in_the_content(inner):
    text = f"<tool_call>{inner}</tool_call>"
    assert read(text) == Reply(text)


def test_tags_that_were_not_requested_are_text():
    assert read(CALL, calls=False).content == CALL
    assert read("<think>Hm.</think>So", thinks=False).content == "<think>Hm.</think>So"


def test_reasoning_may_begin_in_the_prompt():
    reply = read("Hm.</think>So.")
    assert (reply.reasoning, reply.content) == ("Hm.", "So.")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "text",
    [
        "Plain, and 1 < 2.",
        f"<think>Hm, <b>.</think>Let me see.{CALL}",
        f"Thought.</think>{CALL}\n{CALL}",
        "A <tool_call>that is none",
        "ends in <",
        "<think>cut off while th",
        "\n<think>\nHm.\n</think>\n\nSo.",
    ],
)
def test_a_stream_says_the_same_in_pieces_of_any_size(text, size):
    content, reasoning, calls = streamed(text, size)
    reply = read(text)
    assert (content, reasoning) == (reply.content, reply.reasoning or "")
    assert calls == [(call.name, call.arguments) for call in reply.tool_calls]


def test_reasoning_is_shown_as_it_comes_where_its_beginning_is_seen():
    reader = TagReader(calls=False, thinks=True)
    parts = [reader.part(piece, (), is_last=False) for piece in ("<think>H", "m.", "</think>So")]
    assert [part.reasoning for part in parts] == ["H", "m.", ""]
    assert [part.content for part in parts] == ["", "", "So"]


def test_a_reply_that_was_cut_off_within_its_reasoning_says_nothing():
    assert read("<think>Hm, let me") == Reply("", "Hm, let me")


def test_a_stream_shows_no_part_of_a_tag():
    reader = TagReader(calls=True, thinks=False)
    shown = [reader.part(piece, (), is_last=False).content for piece in ("So <", "tool_", "call>{")]
    assert shown == ["So", "", ""]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, "auto"),
        ("none", "none"),
        ("any", "required"),
        (True, "required"),
        ("required", "required"),
        ("add", "add"),
        ({"type": "function", "function": {"name": "add"}}, "add"),
        ({"type": "tool", "name": "add"}, "add"),
    ],
)
def test_there_are_many_ways_to_choose_a_tool(given, meant):
    assert tool_choice_of(given) == meant


def test_a_choice_that_means_nothing_is_refused():
    with pytest.raises(errors.InvalidRequestError, match="tool_choice is 3"):
        tool_choice_of(3)
