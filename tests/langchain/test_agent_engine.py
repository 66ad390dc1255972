"""An agent on the real engine: its answer by schema is doubted, and a person decides."""

import pytest
from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from tests.langchain.scripted_chat import metadata_of
from uq_llm_integrations import ChatVLLMUncertainty, HighUncertaintyError
from uq_llm_integrations.langchain import UncertaintyGateMiddleware

pytestmark = pytest.mark.engine

ALWAYS = "perplexity > 0.5"  # it is 1 at least
QUESTION = {"messages": [("user", "What is the capital of France?")]}


class City(BaseModel):
    """A city."""

    name: str


def test_a_person_edits_an_answer_by_schema(backend):
    chat = ChatVLLMUncertainty(backend=backend, temperature=0, max_tokens=64)
    gate = UncertaintyGateMiddleware(ALWAYS, retries=0, then="ask")
    saver, thread = InMemorySaver(), {"configurable": {"thread_id": "1"}}
    agent = create_agent(chat, [], middleware=[gate], checkpointer=saver, response_format=City)
    (action,) = agent.invoke(QUESTION, thread)["__interrupt__"][0].value["action_requests"]
    assert (action["name"], action["args"].keys()) == ("City", {"name"})
    edited = {"type": "edit", "edited_action": {"name": "City", "args": {"name": "Lutetia"}}}
    state = agent.invoke(Command(resume={"decisions": [edited]}), thread)
    assert state["structured_response"] == City(name="Lutetia")
    assert metadata_of(state["messages"][1])["draft"]["tool_calls"][0]["args"] == action["args"]


def test_an_abstention_where_an_object_was_due_is_an_error(backend):
    chat = ChatVLLMUncertainty(
        backend=backend,
        temperature=0,
        max_tokens=64,
        uncertain_when=ALWAYS,
        on_high_uncertainty="abstain",
    )
    with pytest.raises(HighUncertaintyError) as caught:
        create_agent(chat, [], response_format=City).invoke(QUESTION)
    assert caught.value.text
    assert caught.value.uncertainty["scores"]["perplexity"] >= 1
