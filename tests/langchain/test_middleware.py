"""LangChain's agents with a gate: again, another model, a person."""

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from tests.langchain.scripted_chat import call, metadata_of
from uq_llm_integrations import (
    ChatVLLMUncertainty,
    ScriptedBackend,
    ScriptedLine,
    agreement,
    errors,
    score,
)
from uq_llm_integrations.langchain import UncertaintyGateMiddleware

SURE, UNSURE = ScriptedLine("sure", 0.9), ScriptedLine("unsure", 0.5)
UNCERTAIN = score("perplexity") > 1.65
ADD = call("add", a=1, b=2)
ran: list[tuple[int, int]] = []


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    ran.append((a, b))
    return a + b


@pytest.fixture(autouse=True)
def _nothing_ran():
    ran.clear()


def agent(script, *middleware, checkpointer=None, **gate):
    backend = ScriptedBackend(script)
    gates = [*middleware, UncertaintyGateMiddleware(UNCERTAIN, **gate)]
    built = create_agent(
        ChatVLLMUncertainty(backend=backend), [add], middleware=gates, checkpointer=checkpointer
    )
    built.backend = backend
    return built


def question(text="?"):
    return {"messages": [("user", text)]}


def test_a_certain_agent_works_as_any_other():
    built = agent({"?": [ADD], "user: ?\nassistant: \ntool: 3": ["It is 3."]})
    messages = built.invoke(question())["messages"]
    assert messages[-1].content == "It is 3."
    assert ran == [(1, 2)]
    assert metadata_of(messages[-1])["scores"]


def test_an_uncertain_answer_is_sampled_again_with_another_seed():
    built = agent([UNSURE, UNSURE, SURE], retries=2, temperature=0.3)
    assert built.invoke(question())["messages"][-1].content == "sure"
    retries = [
        (r.sampling.get("seed"), r.sampling.get("temperature")) for r in built.backend.requests
    ]
    assert retries == [(None, None), (1, 0.3), (2, 0.3)]


async def test_an_uncertain_answer_is_sampled_again_async():
    built = agent([UNSURE, SURE])
    assert (await built.ainvoke(question()))["messages"][-1].content == "sure"


class Elsewhere(GenericFakeChatModel):
    def bind_tools(self, tools, **kwargs):
        return self


def test_then_another_model_answers():
    """One without scores is believed: it was called because it knows more."""
    bigger = Elsewhere(messages=iter([AIMessage("the bigger one knows")]))
    built = agent([UNSURE], fallback=bigger)
    assert built.invoke(question())["messages"][-1].content == "the bigger one knows"
    assert len(built.backend.requests) == 2


def test_what_stays_uncertain_is_an_error_or_annotated():
    with pytest.raises(errors.HighUncertaintyError, match=r"perplexity > 1\.65"):
        agent([UNSURE]).invoke(question())
    assert agent([UNSURE], then="annotate").invoke(question())["messages"][-1].content == "unsure"


def test_the_error_is_one_that_langchains_own_middleware_acts_upon():
    again = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="error")
    built = agent([UNSURE, UNSURE, SURE], again, retries=0)
    assert built.invoke(question())["messages"][-1].content == "sure"
    bigger = ChatVLLMUncertainty(backend=ScriptedBackend([SURE]))
    built = agent([UNSURE], ModelFallbackMiddleware(bigger), retries=0)
    assert built.invoke(question())["messages"][-1].content == "sure"


THREAD = {"configurable": {"thread_id": "1"}}


@pytest.mark.parametrize(("decision", "content"), [("approve", "unsure"), ("It is 3.", "It is 3.")])
def test_a_person_decides_and_the_model_does_not_answer_again(decision, content):
    built = agent([UNSURE], retries=1, then="ask", checkpointer=InMemorySaver())
    (interrupt,) = built.invoke(question(), THREAD)["__interrupt__"]
    assert interrupt.value["text"] == "unsure"
    assert interrupt.value["uncertainty"]["scores"]["perplexity"] > 0.5
    messages = built.invoke(Command(resume=decision), THREAD)["messages"]
    assert messages[-1].content == content
    assert len(built.backend.requests) == 2


async def test_a_person_decides_async():
    built = agent([UNSURE], then="ask", checkpointer=InMemorySaver())
    assert "__interrupt__" in await built.ainvoke(question(), THREAD)
    messages = (await built.ainvoke(Command(resume="approve"), THREAD))["messages"]
    assert messages[-1].content == "unsure"


REFUSED = "add was not run: you were too uncertain of this call."


def test_a_tool_whose_call_is_uncertain_is_not_run_and_the_model_gets_the_reason():
    script = {
        "?": [ScriptedLine(ADD, 0.5)],
        f"user: ?\nassistant: \ntool: {REFUSED}": ["I gave up."],
    }
    messages = agent(script, then="annotate").invoke(question())["messages"]
    assert (messages[-2].status, messages[-2].content) == ("error", REFUSED)
    assert messages[-1].content == "I gave up."
    assert ran == []


def test_a_tool_whose_call_is_uncertain_runs_where_that_is_wanted():
    script = {"?": [ScriptedLine(ADD, 0.5)], "user: ?\nassistant: \ntool: 3": ["It is 3."]}
    built = agent(script, then="annotate", guard_tools=False)
    assert built.invoke(question())["messages"][-1].content == "It is 3."
    assert ran == [(1, 2)]


@pytest.mark.parametrize(("decision", "runs"), [("approve", [(1, 2)]), ("Better not.", [])])
def test_a_person_decides_on_an_uncertain_call(decision, runs):
    """It is uncertain, is sampled again, and is then shown to a person before the tool runs."""
    script = {"?": [ScriptedLine(ADD, 0.5)], "user: ?\nassistant: \ntool: 3": ["It is 3."]}
    built = agent(script, retries=1, then="ask", checkpointer=InMemorySaver())
    (interrupt,) = built.invoke(question(), THREAD)["__interrupt__"]
    assert interrupt.value["tool_calls"][0]["args"] == {"a": 1, "b": 2}
    assert len(built.backend.requests) == 2 and ran == []
    messages = built.invoke(Command(resume=decision), THREAD)["messages"]
    assert ran == runs
    assert messages[-1].content == ("It is 3." if runs else decision)


def test_an_agents_answer_by_schema_is_a_tool_beside_its_tools():
    class Sum(BaseModel):
        """The sum."""

        value: int

    backend = ScriptedBackend({"?": [call("Sum", value=3)]})
    built = create_agent(ChatVLLMUncertainty(backend=backend), [add], response_format=Sum)
    assert built.invoke(question())["structured_response"] == Sum(value=3)


@pytest.mark.parametrize(
    "arguments",
    [{"retries": -1}, {"retries": "2"}, {"then": "shrug"}, {"uncertain_when": agreement() < 0.5}],
)
def test_what_can_never_work_is_refused(arguments):
    with pytest.raises(errors.ConfigurationError):
        UncertaintyGateMiddleware(**arguments)
