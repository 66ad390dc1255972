"""A LangGraph agent with a checkpointer whose uncertain answers a person reviews.

The decisions are those of LangChain's own human in the loop.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from tests.langchain.scripted_chat import InOrder, call, metadata_of
from uq_llm_integrations import (
    ChatVLLMUncertainty,
    InvalidRequestError,
    ScriptedBackend,
    ScriptedLine,
    score,
)
from uq_llm_integrations.langchain import UncertaintyGateMiddleware

UNCERTAIN = score("perplexity") > 1.65
UNSURE, SURE = ScriptedLine("unsure", 0.5), ScriptedLine("sure", 0.9)
ADD = call("add", a=1, b=2)
APPROVE, REJECT = {"type": "approve"}, {"type": "reject"}
THREAD: Any = {"configurable": {"thread_id": "1"}}
BOTH_WAYS = pytest.mark.parametrize("is_async", [False, True])
ran: list[tuple[int, int]] = []


class Sum(BaseModel):
    """The sum."""

    value: int


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    ran.append((a, b))
    return a + b


@pytest.fixture(autouse=True)
def _nothing_ran():
    ran.clear()


def agent(script, tools=(add,), **arguments):
    chat = ChatVLLMUncertainty(backend=ScriptedBackend(script), max_tokens=1024)
    gate = UncertaintyGateMiddleware(UNCERTAIN, retries=0, then="ask")
    built = create_agent(
        chat, list(tools), middleware=[gate], checkpointer=InMemorySaver(), **arguments
    )
    built.backend = chat.backend
    return built


def edit(name, /, **args):
    return {"type": "edit", "edited_action": {"name": name, "args": args}}


def asked(built, text="?"):
    """Run the agent until it asks, and return what it asks about."""
    (interrupt,) = built.invoke({"messages": [("user", text)]}, THREAD)["__interrupt__"]
    return interrupt.value


def resumed(built, *decisions):
    return built.invoke(Command(resume={"decisions": list(decisions)}), THREAD)


def doubtful(*calls):
    return ScriptedLine("\n".join(calls), 0.5)


def test_the_question_is_a_request_of_langchains_own():
    question = asked(agent([UNSURE]))
    (action,), (config,) = question["action_requests"], question["review_configs"]
    assert (action["name"], action["args"]) == ("answer", {"text": "unsure"})
    assert "perplexity > 1.65" in action["description"]
    assert config == {"action_name": "answer", "allowed_decisions": ["approve", "edit", "reject"]}
    assert question["uncertainty"]["scores"]["perplexity"] > 1.65


@BOTH_WAYS
async def test_an_approved_answer_stands_with_its_scores(is_async):
    built = agent([UNSURE])
    command = Command(resume={"decisions": [APPROVE]})
    if is_async:
        assert "__interrupt__" in await built.ainvoke({"messages": [("user", "?")]}, THREAD)
        state = await built.ainvoke(command, THREAD)
    else:
        asked(built)
        state = built.invoke(command, THREAD)
    assert state["messages"][-1].content == "unsure"
    assert metadata_of(state["messages"][-1])["scores"]["perplexity"] > 1.65
    assert metadata_of(state["messages"][-1])["approved"] is True
    assert len(built.backend.requests) == 1


def test_an_edited_answer_is_a_persons_and_the_draft_is_kept():
    built = agent([UNSURE])
    draft = asked(built)["uncertainty"]
    message = resumed(built, edit("answer", text="It is 3."))["messages"][-1]
    assert message.content == "It is 3."
    found = metadata_of(message)
    assert set(found["scores"].values()) == {None}
    assert found["reasons"]["perplexity"] == "a person wrote it, and no model"
    assert (found["edited_by"], found["uncertain"]) == ("person", False)
    assert found["draft"] == {"text": "unsure", "tool_calls": [], "uncertainty": draft}


def test_a_rejected_answer_goes_back_to_the_model_with_the_reason():
    rejection = "user: ?\nassistant: unsure\nuser: User rejected your answer with reason: No."
    built = agent({"?": [UNSURE], rejection: [SURE]})
    asked(built)
    messages = resumed(built, {**REJECT, "message": "No."})["messages"]
    assert [one.content for one in messages[-3::2]] == ["unsure", "sure"]
    assert metadata_of(messages[-3])["rejected_by"] == "person"


def test_several_answers_of_one_run_are_asked_about_one_after_the_other():
    after = "user: ?\nassistant: \ntool: 3"
    built = agent({"?": [doubtful(ADD)], after: [UNSURE]})
    asked(built)
    (second,) = resumed(built, APPROVE)["__interrupt__"]
    assert second.value["action_requests"][0]["args"] == {"text": "unsure"}
    assert resumed(built, APPROVE)["messages"][-1].content == "unsure"
    assert ran == [(1, 2)]
    assert len(built.backend.requests) == 2


def test_calls_are_decided_about_in_their_order():
    """Approved, edited, rejected, and answered in the tool's place: those run that may."""
    calls = [call("add", a=i, b=0) for i in range(4)]
    told = ["User rejected the tool call for `add` with reason: No.", "I say 9.", "0", "7"]
    after = "user: ?\nassistant: " + "".join(f"\ntool: {one}" for one in told)
    built = agent({"?": [doubtful(*calls)], after: [SURE]})
    question = asked(built)
    assert [one["args"]["a"] for one in question["action_requests"]] == [0, 1, 2, 3]
    assert "respond" in question["review_configs"][0]["allowed_decisions"]
    decisions = [
        APPROVE,
        edit("add", a=3, b=4),
        {**REJECT, "message": "No."},
        {"type": "respond", "message": "I say 9."},
    ]
    built.invoke(Command(resume={"decisions": decisions}), THREAD)
    messages = built.get_state(THREAD).values["messages"]
    assert sorted(ran) == [(0, 0), (3, 4)]
    replies = {one.tool_call_id: one for one in messages if one.type == "tool"}
    made = messages[1].tool_calls
    assert [made[1]["args"], replies[made[1]["id"]].content] == [{"a": 3, "b": 4}, "7"]
    assert (replies[made[2]["id"]].status, replies[made[2]["id"]].content) == ("error", told[0])
    assert (replies[made[3]["id"]].status, replies[made[3]["id"]].content) == ("success", told[1])
    first, edited, rejected, answered = metadata_of(messages[1])["tool_calls"]
    assert first["approved"] and first["scores"]["perplexity"] > 1.65
    assert (edited["edited_by"], edited["scores"]["perplexity"]) == ("person", None)
    assert (rejected["rejected_by"], answered["answered_by"]) == ("person", "person")
    assert metadata_of(messages[1])["draft"]["tool_calls"][1]["args"] == {"a": 1, "b": 0}


@BOTH_WAYS
@pytest.mark.parametrize("tools", [(), (add,)])
async def test_an_uncertain_answer_by_schema_is_asked_about(tools, is_async):
    """It is a call of a tool beside the agent's own, whose message is no more the last one."""
    built = agent([doubtful(call("Sum", value=3))], tools, response_format=ToolStrategy(Sum))
    given = {"messages": [("user", "?")]}
    state = await built.ainvoke(given, THREAD) if is_async else built.invoke(given, THREAD)
    (action,) = state["__interrupt__"][0].value["action_requests"]
    assert (action["name"], action["args"]) == ("Sum", {"value": 3})
    command = Command(resume={"decisions": [APPROVE]})
    state = await built.ainvoke(command, THREAD) if is_async else built.invoke(command, THREAD)
    assert state["structured_response"] == Sum(value=3)
    assert len(built.backend.requests) == 1


@pytest.mark.parametrize("tools", [(), (add,)])
def test_an_edited_answer_by_schema_takes_the_drafts_place_everywhere(tools):
    built = agent([doubtful(call("Sum", value=3))], tools, response_format=ToolStrategy(Sum))
    asked(built)
    state = resumed(built, edit("Sum", value=4))
    assert state["structured_response"] == Sum(value=4)
    assert state["messages"][1].tool_calls[0]["args"] == {"value": 4}
    assert "3" not in state["messages"][2].content
    assert metadata_of(state["messages"][1])["draft"]["tool_calls"][0]["args"] == {"value": 3}


@pytest.mark.parametrize("tools", [(), (add,)])
def test_a_rejected_answer_by_schema_is_no_response_and_the_model_goes_on(tools):
    told = "User rejected the tool call for `Sum` with reason: No."
    script = {
        "?": [doubtful(call("Sum", value=3))],
        f"user: ?\nassistant: \ntool: {told}": [call("Sum", value=5)],
    }
    built = agent(script, tools, response_format=ToolStrategy(Sum))
    asked(built)
    state = resumed(built, {**REJECT, "message": "No."})
    assert state["structured_response"] == Sum(value=5)
    assert (state["messages"][2].status, state["messages"][2].content) == ("error", told)


@pytest.mark.parametrize(
    ("decision", "value"),
    [(APPROVE, 3), (edit("answer", text='{"value": 4}'), 4), ({**REJECT, "message": "No."}, 5)],
)
def test_an_uncertain_answer_in_the_models_own_format_is_asked_about(decision, value):
    said = '{"value": 3}'
    rejection = f"user: ?\nassistant: {said}\nuser: User rejected your answer with reason: No."
    script = {"?": [doubtful(said)], rejection: [ScriptedLine('{"value": 5}', 0.9)]}
    built = agent(script, (), response_format=ProviderStrategy(Sum))
    assert asked(built)["action_requests"][0]["args"] == {"text": said}
    state = resumed(built, decision)
    assert state["structured_response"] == Sum(value=value)
    if decision["type"] == "edit":
        assert json.loads(state["messages"][-1].content) == {"value": 4}


def test_a_call_that_is_no_answer_by_schema_is_the_models_to_mend():
    wrong, right = call("Sum", value="x"), call("Sum", value=3)
    built = agent(InOrder(doubtful(wrong), right), (), response_format=ToolStrategy(Sum))
    state = built.invoke({"messages": [("user", "?")]}, THREAD)
    assert state["structured_response"] == Sum(value=3)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        ("approve", "resumed with 'approve'"),
        (True, "resumed with True"),
        ([APPROVE], "resumed with"),
        ({"decision": APPROVE}, "resumed with"),
        ({"decisions": [APPROVE], "note": "x"}, "resumed with"),
        ({"decisions": APPROVE}, "a list of 1"),
        ({"decisions": []}, "a list of 1"),
        ({"decisions": [APPROVE, APPROVE]}, "a list of 1"),
        ({"decisions": ["approve"]}, r"decisions\[0\] is 'approve'"),
        ({"decisions": [{"type": "accept"}]}, "allowed for 'answer' are the types approve, edit"),
        ({"decisions": [{"type": "respond", "message": "x"}]}, "allowed for 'answer'"),
        ({"decisions": [{"type": "approve", "args": {}}]}, "has 'args'"),
        ({"decisions": [{"type": "edit"}]}, r"edited_action is None"),
        ({"decisions": [{"type": "edit", "edited_action": "x"}]}, r"edited_action is 'x'"),
        ({"decisions": [edit("answer")]}, r"edited_action\.args is {}"),
        ({"decisions": [edit("answer", text=3)]}, r"edited_action\.args is"),
        ({"decisions": [edit("add", a=1, b=2)]}, r"edited_action\.name is 'add'"),
        ({"decisions": [{"type": "reject", "message": 3}]}, r"message is 3"),
    ],
)
def test_anything_else_is_refused_by_name_and_the_run_can_be_resumed_again(response, error):
    built = agent([UNSURE])
    asked(built)
    with pytest.raises(InvalidRequestError, match=error):
        built.invoke(Command(resume=response), THREAD)
    assert resumed(built, APPROVE)["messages"][-1].content == "unsure"
    assert len(built.backend.requests) == 1


def test_an_edited_object_must_be_one():
    built = agent([doubtful(call("Sum", value=3))], (), response_format=ToolStrategy(Sum))
    asked(built)
    for wrong, error in (
        (edit("Sum", value="x"), "no Sum: value: Input should be a valid integer"),
        (edit("Total", value=3), "name is 'Total'; allowed is 'Sum'"),
    ):
        with pytest.raises(InvalidRequestError, match=error):
            resumed(built, wrong)
    assert resumed(built, edit("Sum", value=4))["structured_response"] == Sum(value=4)


json_values = st.recursive(
    st.none() | st.integers() | st.sampled_from(["approve", "edit", "reject", "answer", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["decisions", "type", "message", "edited_action", "name", "args"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=25)
@given(response=json_values.filter(lambda one: one is not None))
def test_no_response_has_another_outcome_than_a_decision_or_an_error(response):
    built = agent([UNSURE])
    asked(built)
    try:
        state = built.invoke(Command(resume=response), THREAD)
    except InvalidRequestError:
        state = resumed(built, APPROVE)
    assert state["messages"][-1].content == "unsure"
