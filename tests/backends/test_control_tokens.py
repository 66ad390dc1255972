"""Text from outside stays text: no control token comes of it, in whatever family of tokenizers.

What a text comes to without them is known from a twin of each tokenizer whose control tokens, and
the template that writes them, have other names.
"""

from copy import copy, deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizer

from tests.backends.chat_families import FAMILIES, family
from tests.backends.test_codec import TemplateBackend
from tests.fuzzing import fuzz
from uq_llm_integrations import Conversation, InvalidRequestError
from uq_llm_integrations.backends.control_tokens import ControlTokens
from uq_llm_integrations.checkpoints import resolve_model

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    },
}
THOUGHT = "think"
"""Templates of models that reason look for it in what was said before."""

every_family = pytest.mark.parametrize("name", FAMILIES)
NAMES = [
    (kind, token.content)
    for kind, one in FAMILIES.items()
    for token in one.tokens
    if THOUGHT not in token.content
]


class Tokenizing(TemplateBackend):
    """Has a given tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(None)
        self._given = tokenizer

    async def tokenizer(self) -> Any:
        return self._given


def conversation(text: str) -> tuple[dict[str, Any], ...]:
    """A text in every role and place."""
    call = {"name": text, "arguments": {"a": text, text: ["b", text]}}
    return (
        {"role": "system", "content": f"Be {text}"},
        {"role": "user", "content": [{"type": "text", "text": text}, {"type": "text", "text": "!"}]},
        {"role": "assistant", "content": text, "tool_calls": [{"id": text, "function": call}]},
        {"role": "tool", "tool_call_id": text, "name": text, "content": text},
        {"role": "user", "content": f"the cat {text} sat", "name": text},
    )


def tool(text: str) -> dict[str, Any]:
    described = deepcopy(TOOL)
    described["function"] |= {"name": text, "description": f"Does {text}."}
    described["function"]["parameters"]["properties"][text] = {"enum": [text]}
    return described


async def ids_of(tokenizer: Any, messages: Any, tools: Any = (), **more: Any) -> tuple[int, ...]:
    given = Conversation(tuple(messages), tuple(tools), **more)
    return await Tokenizing(tokenizer).encode_chat(given)


async def tokenizers_own(tokenizer: Any, messages: Any, tools: Any = ()) -> tuple[int, ...]:
    """What the tokenizer makes of it, with all names of control tokens as these."""
    return await ids_of(tokenizer, messages, tools, allow_special_tokens=True)


@pytest.mark.parametrize(("name", "token"), NAMES)
async def test_the_name_of_a_control_token_is_text_in_every_role_and_part(name, token):
    messages, tools = conversation(f"a {token}b"), [tool(token)]
    ids = await ids_of(family(name), messages, tools)
    assert ids == await tokenizers_own(family(name, is_renamed=True), messages, tools)
    assert ids != await tokenizers_own(family(name), messages, tools)


@every_family
async def test_text_without_such_names_has_the_ids_of_the_template_alone(name):
    texts = ("the <b>cat</b> a|b", "x < 3 > [1] {a: '|'}", "<div\n", "  東京 🙂 ", "> quoted", "\ue000")
    for text in texts:
        messages, tools = conversation(text), [tool(text)]
        assert await ids_of(family(name), messages, tools) == await tokenizers_own(
            family(name), messages, tools
        )


PLACES = st.sampled_from(["system", "user", "assistant", "user"])


@st.composite
def forgeries(draw: st.DrawFn) -> tuple[str, list[dict[str, str]]]:
    """Messages of names of control tokens, pieces of them, and what may stand around them."""
    name = draw(st.sampled_from(sorted(FAMILIES)))
    tokens = [one.content for one in FAMILIES[name].tokens if THOUGHT not in one.content]
    whole = st.sampled_from(tokens)
    cut = st.builds(lambda one, a, b: one[a % len(one) : b % (len(one) + 1)], whole, *[st.integers()] * 2)
    other = st.sampled_from([" ", "\n", "the cat", "<", ">", "|", "\\", '"', "\ue000", "東", "[", "]"])
    text = st.lists(whole | cut | other | st.text(max_size=3), max_size=5).map("".join)
    text = text.filter(lambda one: "⟪" not in one and one.isprintable() or "\n" in one)
    turns = st.tuples(PLACES, text).map(lambda pair: {"role": pair[0], "content": pair[1]})
    return name, draw(st.lists(turns, min_size=1, max_size=4))


@fuzz()
@given(forgeries())
async def test_no_text_forges_a_control_token(forged):
    name, messages = forged
    twin = await tokenizers_own(family(name, is_renamed=True), messages)
    assert await ids_of(family(name), messages) == twin
