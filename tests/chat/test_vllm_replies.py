"""Every parser of vLLM: a stream says what the whole reply does, and what is cut is no call."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.chat.reply_texts import CUTS, PIECES, TAGS, cut_at, of_reply, of_stream
from tests.chat.test_vllm_parsers import ADD
from tests.fuzzing import fuzz
from uq_llm_integrations import Conversation, errors
from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.chat.parsers import reply_reader

hide_mismatched_builds(from_vllm=True)
tool_parsers = pytest.importorskip("vllm.tool_parsers")
reasoning = pytest.importorskip("vllm.reasoning")

TURN = Conversation(({"role": "user", "content": "?"},), (ADD,))
SPECIAL = (
    *TAGS, "<tool_sep>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "◁think▷",
    "<|tool_call_begin|>", "◁/think▷", "<seed:think>", "</seed:think>", "<|start|>", "<|channel|>",
    "<|message|>", "<|call|>", "<|end|>", "<|open|>", "<|close|>", "<|sep|>", "<assistant>",
    "<|channel>", "<channel|>",
)  # fmt: skip  # a list of names


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes that has the tokens which the parsers look for."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made)
    fast.add_tokens(list(SPECIAL), special_tokens=True)
    return fast


TOKENIZER = tokenizer()


def reader(tools=None, thinks=None, choice="auto"):
    return reply_reader(TOKENIZER, TURN, choice, tools, thinks, ())


def serving(manager, lazy: str, kind: str) -> list[str]:
    """The parsers that work without a model, with this tokenizer."""
    found = []
    for name in sorted(getattr(manager, lazy)):
        try:
            reader(**{kind: name})
        except errors.ConfigurationError:
            continue
        found.append(name)
    return found


TOOLS = serving(tool_parsers.ToolParserManager, "lazy_parsers", "tools")
CHOICES = ("auto", "auto", "auto", "required", "add")
THINKING = serving(reasoning.ReasoningParserManager, "lazy_parsers", "thinks")


@pytest.fixture(autouse=True)
def _silent():
    """vLLM logs a traceback for each text that it cannot read."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@fuzz()
@given(st.sampled_from(TOOLS), st.sampled_from(CHOICES), PIECES.map("".join), CUTS)
def test_a_stream_and_a_whole_reply_say_the_same(tools, choice, text, cuts):
    said = of_reply(reader(tools, choice=choice).whole(text, ()))
    assert of_stream(reader(tools, choice=choice), cut_at(text, cuts)) == said


@fuzz()
@given(st.sampled_from(THINKING), st.sampled_from([None, "hermes"]), PIECES.map("".join), CUTS)
def test_replies_with_reasoning_say_the_same_in_a_stream(thinks, tools, text, cuts):
    said = of_reply(reader(tools, thinks).whole(text, ()))
    assert of_stream(reader(tools, thinks), cut_at(text, cuts)) == said


A_B = json.dumps({"a": 12, "b": 345})
NAMED = f'{{"name": "add", "arguments": {A_B}}}'
TAGGED = "<parameter=a>12</parameter>\n<parameter=b>345</parameter>\n</function>"
XML = f"<tool_call>\n<function=add>\n{TAGGED}\n</tool_call>"
FORMATS = {
    "hermes": f"<tool_call>\n{NAMED}\n</tool_call>",
    "llama3_json": NAMED.replace("arguments", "parameters"),
    "granite": f"<|tool_call|>[{NAMED}]",
    "jamba": f"<tool_calls>[{NAMED}]</tool_calls>",
    "xlam": f"[{NAMED}]",
    "phi4_mini_json": f"functools[{NAMED}]",
    "pythonic": "[add(a=12, b=345)]",
    "qwen3_coder": XML,
    "mimo": XML,
    "seed_oss": f"<seed:tool_call>\n<function=add>\n{TAGGED}\n</seed:tool_call>",
    "glm45": "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>12</arg_value>\n"
    "<arg_key>b</arg_key>\n<arg_value>345</arg_value>\n</tool_call>",
    "minimax_m2": '<minimax:tool_call>\n<invoke name="add">\n<parameter name="a">12</parameter>\n'
    '<parameter name="b">345</parameter>\n</invoke>\n</minimax:tool_call>',
    "gemma4": "<|tool_call>call:add{a:12,b:345}<tool_call|>",
}


@pytest.mark.parametrize("tools", FORMATS)
def test_a_call_that_was_cut_is_not_whole(tools):
    text = FORMATS[tools]
    (made,) = reader(tools).whole(text, (), is_cut=True).tool_calls
    assert made.is_whole and json.loads(made.arguments) == {"a": 12, "b": 345}
    for size in range(1, len(text)):
        for call in reader(tools).whole(text[:size], (), is_cut=True).tool_calls:
            assert not call.is_whole or json.loads(call.arguments) == {"a": 12, "b": 345}


@pytest.mark.parametrize("tools", ["hermes", "pythonic", "qwen3_coder"])
def test_content_is_shown_as_it_comes(tools):
    reading = reader(tools)
    shown = [reading.part(one, (), is_last=False).content for one in ("It is ", "1 and 2.", " So")]
    assert shown == ["It is", " 1 and 2.", " So"]


def test_reasoning_is_shown_as_it_comes():
    reading = reader("hermes", "deepseek_r1")
    parts = [reading.part(one, (), is_last=False) for one in ("<think>H", "m.", "</think>So")]
    assert [one.reasoning for one in parts] == ["H", "m.", ""]
    assert [one.content for one in parts] == ["", "", "So"]
