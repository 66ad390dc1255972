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
    "<tool_calls:opensource>", "</tool_calls:opensource>", "<tool_call:opensource>",
    "</tool_call:opensource>", "<tool_sep:opensource>", "<|channel>", "<channel|>",
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
