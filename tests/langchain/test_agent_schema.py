"""An agent whose model calls tools and then answers by a schema, with one grammar for both."""

import pytest
from langchain_core.tools import tool
from pydantic import BaseModel

from tests.langchain.scripted_chat import call, metadata_of
from uq_llm_integrations import ChatVLLMUncertainty, ScriptedBackend

agents = pytest.importorskip("langchain.agents")
from langchain.agents.structured_output import ProviderStrategy  # noqa: E402  # it is there


class Sum(BaseModel):
    """A sum."""

    result: int


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class InOrder(ScriptedBackend):
    """Gives its lines in their order, whatever the prompts are."""

    def _next_line(self, prompt):
        return super()._next_line("any")


def test_an_agent_calls_a_tool_and_answers_by_the_schema():
    chat = ChatVLLMUncertainty(backend=InOrder([call("add", a=1, b=2), '{"result": 3}']))
    agent = agents.create_agent(chat, tools=[add], response_format=ProviderStrategy(Sum))
    state = agent.invoke({"messages": [("user", "1 + 2?")]})
    assert state["structured_response"] == Sum(result=3)
    assert metadata_of(state["messages"][-1])["fields"].keys() == {"result"}
