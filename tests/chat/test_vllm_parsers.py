"""Replies read by vLLM's own parsers, on the real tokenizer and without an engine."""

import json

import pytest
import xgrammar
from transformers import AutoTokenizer

from uq_llm_integrations import Conversation, errors
from uq_llm_integrations.chat.parsers import PlainReader, reply_reader
from uq_llm_integrations.chat.vllm_parsers import VLLMReader
from uq_llm_integrations.checkpoints import resolve_model

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
TURN = Conversation(({"role": "user", "content": "?"},), (ADD,))
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
THINKING = "deepseek_r1"


@pytest.fixture(scope="module")
def tokenizer():
    source = resolve_model("smollm2")
    source.prepare()
    tokenizer = AutoTokenizer.from_pretrained(source.path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    return tokenizer


def reader(tokenizer, choice="auto", tools=None, reasoning=None, conversation=TURN, **more):
    return reply_reader(tokenizer, conversation, choice, tools, reasoning, (), **more)


def accepts(grammar, text) -> bool:
    """Whether a reply of this text can come to its end under vLLM's grammar."""
    compiled = xgrammar.Grammar.from_structural_tag(grammar.structural_tag)
    matcher = xgrammar.GrammarMatcher(
        xgrammar.GrammarCompiler(
            xgrammar.TokenizerInfo([*(chr(i) for i in range(128)), "</s>"], stop_token_ids=[128])
        ).compile_grammar(compiled)
    )
    return matcher.accept_string(text) and matcher.accept_token(128)


def streamed(tokenizer, text, **given):
    reading, ids = reader(tokenizer, **given), tokenizer.encode(text, add_special_tokens=False)
    parts, shown = [], ""
    for i in range(len(ids)):
        said = tokenizer.decode(ids[: i + 1])
        parts.append(reading.part(said[len(shown) :], (ids[i],), is_last=i == len(ids) - 1))
        shown = said
    return parts


def test_a_model_without_a_format_of_its_own_uses_the_described_one(tokenizer):
    reply = reader(tokenizer).whole(f"Let me see. {CALL}", ())
    assert reply.content.strip() == "Let me see."
    (call,) = reply.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("add", {"a": 1, "b": 2})
    assert call.id


def test_a_stream_shows_a_call_once_it_is_known_to_be_whole(tokenizer):
    *before, last = streamed(tokenizer, CALL)
    assert not any(part.calls for part in before)
    (call,) = last.calls
    assert (call.name, call.index, json.loads(call.arguments)) == ("add", 0, {"a": 1, "b": 2})
    assert call.id


def test_a_call_that_must_come_has_a_grammar(tokenizer):
    assert "structured_outputs" not in reader(tokenizer).sampling
    for choice in ("required", "add"):
        assert "structured_outputs" in reader(tokenizer, choice).sampling


def test_one_call_is_forced_where_there_may_be_no_more(tokenizer):
    every, one = (
        reader(tokenizer, "required", one_call=one).sampling["structured_outputs"]
        for one in (False, True)
    )
    assert accepts(every, CALL) and accepts(every, CALL + CALL)
    assert accepts(one, CALL) and not accepts(one, CALL + CALL)
    assert "structured_outputs" not in reader(tokenizer, one_call=True).sampling


CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("schema", [{"json": CITY}, {"json_object": True}])
@pytest.mark.parametrize("one_call", [False, True])
def test_beside_a_schema_a_reply_is_a_call_or_follows_it(tokenizer, schema, one_call):
    reading = reader(tokenizer, schema=schema, one_call=one_call)
    grammar = reading.sampling["structured_outputs"]
    assert accepts(grammar, CALL) and accepts(grammar, '{"city": "Paris"}')
    assert accepts(grammar, CALL + CALL) is not one_call
    assert not accepts(grammar, "Paris.") and not accepts(grammar, CALL.replace("1", '"x"'))
    assert reading.whole('{"city": "Paris"}', ()).content == '{"city": "Paris"}'
    assert [one.name for one in reader(tokenizer, schema=schema).whole(CALL, ()).tool_calls]


@pytest.mark.parametrize("choice", ["required", "add"])
def test_a_call_that_must_come_takes_no_schema(tokenizer, choice):
    grammar = reader(tokenizer, choice, schema={"json": CITY}).sampling["structured_outputs"]
    assert accepts(grammar, CALL) and not accepts(grammar, '{"city": "Paris"}')


def test_a_parser_without_a_grammar_refuses_a_schema_beside_tools(tokenizer):
    with pytest.raises(errors.InvalidRequestError, match="it is 'pythonic'"):
        reader(tokenizer, tools="pythonic", schema={"json": CITY})


def test_reasoning_is_read_in_whole_and_in_pieces(tokenizer):
    plain = Conversation(TURN.messages)
    text = "Hm.</think>Paris."
    ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    reply = reader(tokenizer, reasoning=THINKING, conversation=plain).whole(text, ids)
    assert (reply.reasoning, reply.content) == ("Hm.", "Paris.")
    parts = streamed(tokenizer, text, reasoning=THINKING, conversation=plain)
    assert "".join(part.reasoning for part in parts) == "Hm."
    assert "".join(part.content for part in parts) == "Paris."


def test_without_tools_and_reasoning_nothing_is_read(tokenizer):
    assert isinstance(reader(tokenizer, conversation=Conversation(TURN.messages)), PlainReader)
    assert isinstance(reader(tokenizer), VLLMReader)


@pytest.mark.parametrize("kind", ["tools", "reasoning"])
def test_unknown_parsers_are_refused(tokenizer, kind):
    with pytest.raises(errors.ConfigurationError, match="nonsense"):
        reader(tokenizer, **{kind: "nonsense"})


def test_a_tool_that_is_not_there_cannot_be_chosen(tokenizer):
    with pytest.raises(errors.InvalidRequestError, match="allowed are auto, none, required, add"):
        reader(tokenizer, "subtract")


class Template:
    def __init__(self, template):
        self.chat_template = template


def test_a_template_that_hides_the_format_of_calls_is_refused():
    with pytest.raises(errors.ConfigurationError, match="give `tool_parser`"):
        reader(Template("{{ tools }} in a way of its own"))


def whole_and_streamed(tokenizer, text, **given):
    reply = reader(tokenizer, **given).whole(text, ())
    parts = streamed(tokenizer, text, **given)
    calls = [call for part in parts for call in part.calls]
    return reply, calls


@pytest.mark.parametrize("choice", ["auto", "required", "add"])
@pytest.mark.parametrize(
    ("end", "arguments", "is_whole"),
    [
        ('"b": 2', '{"a": 1, "b": 2', False),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 2}', True),
        ('"arguments": ', "", False),
        ('"add"', "", False),
    ],
)
def test_a_call_that_was_cut_is_read_as_far_as_it_goes(tokenizer, choice, end, arguments, is_whole):
    text = CALL[: CALL.index(end) + len(end)]
    reply, shown = whole_and_streamed(tokenizer, text, choice=choice)
    (call,) = reply.tool_calls
    assert (call.name, call.arguments, call.is_whole) == ("add", arguments, is_whole)
    assert shown[0].name == "add"
    if arguments:
        assert "".join(one.arguments for one in shown) == arguments
    assert reply.content == ""


def test_calls_before_one_that_was_cut_are_whole(tokenizer):
    reply = reader(tokenizer).whole(f"Let me see. {CALL}\n{CALL[:-30]}", ())
    assert [call.is_whole for call in reply.tool_calls] == [True, False]
    assert reply.content.strip() == "Let me see."


def test_arguments_that_are_no_object_are_kept_as_they_are(tokenizer):
    text = '<tool_call>\n{"name": "add", "arguments": [1]}\n</tool_call>'
    reply, shown = whole_and_streamed(tokenizer, text)
    assert reply.tool_calls[0].arguments == "[1]"
    assert "".join(one.arguments for one in shown) == "[1]"
