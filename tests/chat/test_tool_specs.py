"""Tools that are no functions are refused by name, wherever they are given."""

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage

from tests.langchain.scripted_chat import scripted
from uq_llm_integrations import (
    Conversation,
    InvalidRequestError,
    ScriptedBackend,
    UncertaintyModel,
    llama_index,
)
from uq_llm_integrations.chat.reply import Turn

WRONG = [
    {"type": "web_search"},
    {"type": "web_search_20250305", "name": "web_search"},
    {"type": "mcp", "server_label": "x"},
    {"google_search": {}},
    {},
    {"type": "function"},
    {"type": "function", "function": {}},
    {"type": "function", "function": {"name": ""}},
    {"type": "function", "function": {"name": "add", "parameters": [1]}},
    {"type": "function", "function": {"name": "add", "description": 3}},
    "add",
    None,
    3,
]
MESSAGES = [{"role": "user", "content": "?"}]


def bind(tool: Any) -> None:
    scripted().bind_tools([tool])


def invoke(tool: Any) -> None:
    scripted().invoke([HumanMessage("?")], tools=[tool])


def chat(tool: Any) -> None:
    UncertaintyModel(ScriptedBackend(["x"])).chat("?", tools=[tool])


def conversation(tool: Any) -> None:
    given = Conversation(tuple(MESSAGES), (tool,))
    UncertaintyModel(ScriptedBackend(["x"])).chat(given)


def turn(tool: Any) -> None:
    list(UncertaintyModel(ScriptedBackend(["x"])).stream(Turn(Conversation(MESSAGES, (tool,)))))


def llama(tool: Any) -> None:
    llm = llama_index.VLLMUncertaintyLLM(backend=ScriptedBackend(["x"]))
    llm.chat([ChatMessage("?")], tools=[tool])


@pytest.mark.parametrize("given", [bind, invoke, chat, conversation, turn, llama])
@pytest.mark.parametrize("tool", WRONG, ids=str)
def test_what_is_no_function_is_refused(given, tool):
    with pytest.raises(InvalidRequestError) as raised:
        given(tool)
    assert "function" in str(raised.value) or "of the tool" in str(raised.value)


def test_a_providers_tool_is_named():
    with pytest.raises(InvalidRequestError, match="'web_search'} is run by its provider"):
        bind({"type": "web_search"})


@pytest.mark.parametrize("tools", [3, "add", {"type": "function"}])
def test_tools_that_are_no_list_are_refused(tools):
    with pytest.raises(InvalidRequestError, match="function"):
        UncertaintyModel(ScriptedBackend(["x"])).chat("?", tools=tools)
    with pytest.raises(InvalidRequestError, match="function"):
        scripted().invoke("?", tools=tools)


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "add", "description": "Add.", "input_schema": {"type": "object"}},
        {"type": "custom", "name": "add", "input_schema": {"type": "object"}},
        {"name": "add", "parameters": {"type": "object"}},
        {"title": "add", "type": "object", "properties": {"a": {"type": "integer"}}},
        {"toolSpec": {"name": "add", "inputSchema": {"json": {"type": "object"}}}},
        {"type": "function", "function": {"name": "add"}},
    ],
)
def test_functions_of_any_shape_that_langchain_knows_are_bound(tool):
    bound = scripted().bind_tools([tool])
    assert bound.kwargs["tools"][0]["function"]["name"] == "add"
    assert bound.invoke("?").content == "Paris."
    assert scripted().invoke("?", tools=[tool]).content == "Paris."
