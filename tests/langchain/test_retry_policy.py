"""LangGraph's `RetryPolicy`, and other rules by which callers try again, around a model."""

from copy import deepcopy

import pytest
import tenacity
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

import uq_llm_integrations as uq
from tests.langchain.scripted_chat import scripted
from tests.test_errors import EXAMPLES

AT_ONCE = RetryPolicy(initial_interval=0.001, jitter=False)
QUESTION = {"messages": [("user", "Capital of France?")]}
RAISED = [deepcopy(one) for one in EXAMPLES if type(one) is not uq.UncertaintyError]
PASSING = [one for one in RAISED if one.is_retryable and isinstance(one, uq.EngineError)]
LASTING = [one for one in RAISED if not one.is_retryable]


def named(error: Exception) -> str:
    return type(error).__name__


def graph_of(chat, policy=AT_ONCE):
    def answer(state: MessagesState) -> dict:
        return {"messages": [chat.invoke(state["messages"])]}

    async def aanswer(state: MessagesState) -> dict:
        return {"messages": [await chat.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", RunnableLambda(answer, aanswer), retry_policy=policy)
    graph.add_edge(START, "model")
    graph.add_edge("model", END)
    return graph.compile()


@pytest.mark.parametrize("error", RAISED, ids=named)
def test_the_default_policy_retries_what_trying_again_can_help_and_nothing_else(error):
    assert AT_ONCE.retry_on(error) is error.is_retryable


def test_both_kinds_of_error_are_tried_below():
    assert {named(one) for one in PASSING} == {
        "EngineBusyError", "EngineDeadError", "EngineTimeoutError",
    }  # fmt: skip  # a list of names
    assert {"EngineLostError", "InvalidRequestError"} < {named(one) for one in LASTING}


@pytest.mark.parametrize("error", PASSING, ids=named)
def test_a_node_is_run_again_where_the_engine_can_come_back(error):
    chat = scripted(error, "Paris.")
    assert graph_of(chat).invoke(QUESTION)["messages"][-1].content == "Paris."
    assert len(chat.backend.requests) == 2


async def test_a_node_is_run_again_in_an_async_graph():
    chat = scripted(uq.EngineDeadError("gone"), "Paris.")
    state = await graph_of(chat).ainvoke(QUESTION)
    assert state["messages"][-1].content == "Paris."


@pytest.mark.parametrize("error", LASTING, ids=named)
def test_a_node_is_not_run_again_in_vain(error):
    chat = scripted(error, "Paris.")
    with pytest.raises(type(error)):
        graph_of(chat).invoke(QUESTION)
    assert len(chat.backend.requests) == 1


def test_the_attempts_of_a_policy_are_an_upper_bound():
    chat = scripted(uq.EngineDeadError("gone"))
    with pytest.raises(uq.EngineDeadError, match="gone"):
        graph_of(chat, AT_ONCE._replace(max_attempts=4)).invoke(QUESTION)
    assert len(chat.backend.requests) == 4


def test_an_answer_that_is_too_uncertain_is_sampled_again():
    doubtful = [uq.ScriptedLine("Lyon.", 0.3), uq.ScriptedLine("Paris.", 0.9)]
    chat = scripted(*doubtful, uncertain_when="perplexity > 2", on_high_uncertainty="raise")
    assert graph_of(chat).invoke(QUESTION)["messages"][-1].content == "Paris."


def test_other_rules_for_trying_again_hold_as_well():
    """Tenacity's and LangChain's defaults, and the usual rule for what a network does."""
    usual = tenacity.retry_if_exception_type(ConnectionError)
    for rule in ({}, {"retry": usual}):
        stop = tenacity.stop_after_attempt(2)
        retrying = tenacity.Retrying(stop=stop, wait=tenacity.wait_none(), **rule)
        assert retrying(scripted(PASSING[0], "Paris.").invoke, "?").content == "Paris."
    chat = scripted(PASSING[0], "Paris.").with_retry(wait_exponential_jitter=False)
    assert chat.invoke("?").content == "Paris."
