"""Whatever is asked of a model, and however: an answer, or an error of ours. No engine runs."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.llms import ChatMessage, MessageRole

from tests.fuzzing import JSON, TEXTS, changes, fuzz
from uq_llm_integrations import (
    ChatVLLMUncertainty,
    Configuration,
    Conversation,
    ScriptedBackend,
    UncertaintyError,
    UncertaintyModel,
)
from uq_llm_integrations.backends.capabilities import SAMPLING_PARAMETERS
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM
from uq_llm_integrations.settings import Settings

ODD = st.sampled_from([b"?", object(), {1, 2}, 1j, int, np.arange(3), np.float32("nan"), ...])
ANYTHING = JSON | ODD | st.tuples(JSON, ODD) | st.binary(max_size=3)


@pytest.fixture(scope="module")
def model() -> Iterator[UncertaintyModel]:
    with UncertaintyModel(ScriptedBackend(["Paris"]), max_tokens=9) as model:
        yield model


@pytest.fixture(scope="module")
def chat() -> ChatVLLMUncertainty:
    return ChatVLLMUncertainty(backend=ScriptedBackend(["Paris"]), max_tokens=9)


@pytest.fixture(scope="module")
def llm() -> VLLMUncertaintyLLM:
    return VLLMUncertaintyLLM(backend=ScriptedBackend(["Paris"]), max_tokens=9)


def answered_or_refused(call, *also: type[Exception]) -> object:
    """What a call gives, None where it is refused by an error of ours."""
    try:
        return call()
    except (UncertaintyError, *also) as error:
        assert str(error)
        return None


PROMPTS = TEXTS | st.text(max_size=30) | ANYTHING


@fuzz(500)
@given(PROMPTS, PROMPTS, st.booleans())
def test_any_prompt_is_answered_or_refused(model, prompt, other, special):
    given = {"allow_special_tokens": special}
    result = answered_or_refused(lambda: model.generate(prompt, **given))
    assert result is None or result.text == "Paris"
    answered_or_refused(lambda: model.generate_all([prompt, other], **given))
    answered_or_refused(lambda: model.generate_all(prompt))
    answered_or_refused(lambda: model.score(prompt, other, **given))
    answered_or_refused(lambda: model.score_truncated(prompt, [other], **given))
    answered_or_refused(lambda: model.count_tokens(prompt))


OPTIONS = st.sampled_from(sorted({*Settings.model_fields, *SAMPLING_PARAMETERS, "nonsense"}))
VALUES = ANYTHING | st.sampled_from(
    ["entropy", "entropy > 1", "abstain", "raise", "best_of_n", "retry", {"type": "best_of_n"}]
)


@fuzz(500)
@given(st.dictionaries(OPTIONS, VALUES, min_size=1, max_size=3))
def test_any_options_are_taken_or_refused(model, options):
    answered_or_refused(lambda: model.generate("?", **options))
    answered_or_refused(lambda: UncertaintyModel(model.backend, **options))


GENERATORS = st.sampled_from(
    [
        {"type": "vllm", "model": "smollm2", "gpu_memory_utilization": 0.9},
        {"type": "vllm_server", "base_url": "http://localhost:8000", "max_in_flight": 3},
        {"type": "vllm_server", "base_url": ["http://a"], "headers": {"a": "b"}, "api_key": "k"},
        {"type": "huggingface", "model": "smollm2", "batch_size": 2},
        {"type": "hybrid", "model": "smollm2", "mode": "shared", "vllm": {"seed": 1}},
    ]
)


@fuzz(200)
@given(GENERATORS.flatmap(changes))
@example({"type": "vllm", "model": "9" * 400})  # longer than a name of a file may be
def test_any_generator_is_described_or_refused(generator):
    answered_or_refused(lambda: Configuration.read({"generator": generator}).generator.backend())


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Capital?"}, {"text": "Of France?"}]},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hm.",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "3"},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": ["3"]}]},
]
PARAMETERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/B"}},
    "required": ["a"],
    "$defs": {"B": {"anyOf": [{"type": "string", "pattern": "^a$"}, {"$ref": "#/$defs/B"}]}},
}
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": PARAMETERS},
}
KINDS = ["text", "image_url", "thinking", "tool_use", "tool_result", "document", "json", "refusal"]
BLOCKS = st.dictionaries(
    st.sampled_from(["type", "text", "content", "source", "input", "name", "id", "value", "image"]),
    st.sampled_from(KINDS) | JSON,
    max_size=4,
)
CONTENTS = ANYTHING | st.lists(BLOCKS | TEXTS, max_size=3)
ANY_MESSAGES = changes(MESSAGES) | st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system"]) | TEXTS},
        optional={"content": CONTENTS, "tool_calls": CONTENTS, "name": TEXTS},
    ),
    max_size=3,
)


@fuzz(500)
@given(ANY_MESSAGES | ANYTHING, st.booleans())
def test_any_messages_are_answered_or_refused(model, messages, stream):
    if stream:
        answered_or_refused(lambda: list(model.stream(messages)))
        return
    found = answered_or_refused(lambda: model.chat(messages))
    assert found is None or found.replies[0].reply.content == "Paris"


@fuzz(500)
@given(changes(PARAMETERS) | ANYTHING, changes([TOOL]) | ANYTHING, ANYTHING, st.booleans())
@example(None, None, np.arange(3), False)
def test_any_schema_and_any_tools_are_taken_or_refused(model, schema, tools, choice, parallel):
    answered_or_refused(lambda: model.chat("?", schema=schema))
    answered_or_refused(lambda: model.chat("?", tools=tools, tool_choice=choice))
    given = {"parallel_tool_calls": parallel, "continue_final_message": choice}
    answered_or_refused(lambda: model.chat("?", tools=tools, schema=schema, **given))


@fuzz(300)
@given(ANY_MESSAGES | ANYTHING, changes([TOOL]) | ANYTHING, ANYTHING)
@example(MESSAGES, np.arange(3), {})
def test_any_conversation_is_answered_or_refused(model, messages, tools, template):
    answered_or_refused(lambda: model.chat(Conversation(messages, tools, template)))


KWARGS = st.dictionaries(
    st.sampled_from(["reasoning_content", "reasoning", "function_call", "tool_calls", "name"]),
    JSON,
    max_size=2,
)


def message_of(kind, content, kwargs):
    more = {"tool_call_id": "1"} if kind is ToolMessage else {}
    return kind(content, additional_kwargs=kwargs, **more)


CLASSES = st.sampled_from([HumanMessage, AIMessage, SystemMessage, ToolMessage])
BLOCKS_OF_LANGCHAIN = BLOCKS.filter(lambda block: isinstance(block.get("type", ""), str))
"""What LangChain itself does not fail of."""
CHATTED = TEXTS | st.lists(BLOCKS_OF_LANGCHAIN | TEXTS, max_size=3)


@fuzz(300)
@given(st.lists(st.tuples(CLASSES, CHATTED, KWARGS), max_size=3), st.booleans())
def test_any_messages_of_langchain_are_answered_or_refused(chat, parts, stream):
    messages = [message_of(*one) for one in parts]
    if stream:
        answered_or_refused(lambda: list(chat.stream(messages)))
    else:
        answered_or_refused(lambda: chat.invoke(messages))


@fuzz(300)
@given(changes(PARAMETERS) | ANYTHING, changes([TOOL]) | ANYTHING, ANYTHING)
def test_any_schema_and_any_tools_of_langchain_are_taken_or_refused(chat, schema, tools, choice):
    structured = chat.with_structured_output
    answered_or_refused(lambda: structured(schema).invoke("?"), OutputParserException)
    answered_or_refused(lambda: chat.bind_tools(tools, tool_choice=choice).invoke("?"))
    answered_or_refused(lambda: chat.invoke("?", response_format=schema))


ROLES = st.sampled_from(list(MessageRole))


@fuzz(300)
@given(st.lists(st.tuples(ROLES, TEXTS, KWARGS), max_size=3), st.booleans())
def test_any_messages_of_llama_index_are_answered_or_refused(llm, parts, stream):
    messages = [
        ChatMessage(role=role, content=text, additional_kwargs=kwargs)
        for role, text, kwargs in parts
    ]
    if stream:
        answered_or_refused(lambda: list(llm.stream_chat(messages)))
    else:
        answered_or_refused(lambda: llm.chat(messages))
