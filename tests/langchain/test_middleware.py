"""LangChain's agents with a gate: again, another model, a person."""

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    human_in_the_loop,
)  # fmt: skip  # a list of names
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from tests.langchain.scripted_chat import InOrder, call, metadata_of, scripted
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


def agent(script, *middleware, **gate):
    backend = ScriptedBackend(script)
    gates = [*middleware, UncertaintyGateMiddleware(UNCERTAIN, **gate)]
    built = create_agent(ChatVLLMUncertainty(backend=backend), [add], middleware=gates)
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
    bigger = Elsewhere(messages=iter([AIMessage("the bigger one knows")]))
    built = agent([UNSURE], fallback=bigger, allow_unscored=True)
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


def test_an_agents_answer_by_schema_is_a_tool_beside_its_tools():
    class Sum(BaseModel):
        """The sum."""

        value: int

    backend = ScriptedBackend({"?": [call("Sum", value=3)]})
    built = create_agent(ChatVLLMUncertainty(backend=backend), [add], response_format=Sum)
    assert built.invoke(question())["structured_response"] == Sum(value=3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"retries": -1},
        {"retries": "2"},
        {"then": "shrug"},
        {"uncertain_when": agreement() < 0.5},
        {"uncertain_when": "mean_nll > 1", "fallback": scripted()},
        {"uncertain_when": "token_max(entropy) > 1", "fallback": scripted()},
    ],
)
def test_what_can_never_work_is_refused(arguments):
    with pytest.raises(errors.ConfigurationError):
        UncertaintyGateMiddleware(**arguments)


def test_another_providers_model_is_refused():
    """Its answer has no scores, and nobody could say whether it is uncertain."""
    bigger = Elsewhere(messages=iter([AIMessage("the bigger one knows")]))
    with pytest.raises(errors.InvalidRequestError, match="has no scores"):
        agent([UNSURE], fallback=bigger).invoke(question())
    model = Elsewhere(messages=iter([AIMessage("from elsewhere")] * 2))
    with pytest.raises(errors.InvalidRequestError, match="has no scores"):
        create_agent(model, [], middleware=[UncertaintyGateMiddleware(UNCERTAIN)]).invoke(
            question()
        )
    gate = UncertaintyGateMiddleware(UNCERTAIN, allow_unscored=True)
    messages = create_agent(model, [], middleware=[gate]).invoke(question())["messages"]
    assert messages[-1].content == "from elsewhere"


@pytest.mark.parametrize("then", ["raise", "ask", "annotate"])
def test_a_score_that_the_model_does_not_compute_is_an_error_that_names_it(then):
    gate = UncertaintyGateMiddleware("mean_nll > 1", then=then)
    built = create_agent(scripted(SURE), [], middleware=[gate])
    with pytest.raises(errors.InvalidRequestError, match=r"methods=\['mean_nll'\]"):
        built.invoke(question())
    built = create_agent(scripted(SURE, methods=["mean_nll"]), [], middleware=[gate])
    assert built.invoke(question())["messages"][-1].content == "sure"


def test_a_method_of_whole_answers_judges_their_calls_too():
    script = {"?": [ScriptedLine(ADD, 0.9)], "user: ?\nassistant: \ntool: 3": ["It is 3."]}
    chat = ChatVLLMUncertainty(backend=ScriptedBackend(script), methods=["p_true"])
    gate = UncertaintyGateMiddleware("p_true > 99")
    messages = create_agent(chat, [add], middleware=[gate]).invoke(question())["messages"]
    assert messages[-1].content == "It is 3."
    assert ran == [(1, 2)]


def test_a_window_over_tokens_judges_each_call_by_its_own():
    script = {"?": [ScriptedLine(ADD, 0.9)], "user: ?\nassistant: \ntool: 3": ["It is 3."]}
    chat = ChatVLLMUncertainty(backend=ScriptedBackend(script), token_scores=True)
    gate = UncertaintyGateMiddleware("token_max(mean_nll) > 0.2")
    messages = create_agent(chat, [add], middleware=[gate]).invoke(question())["messages"]
    assert messages[-1].content == "It is 3."


@pytest.mark.skipif(
    not hasattr(human_in_the_loop, "_EDITED_TOOL_CALLS_KEY"), reason="an older one keeps no note"
)
def test_a_call_that_langchains_own_middleware_let_a_person_edit_is_run():
    backend = ScriptedBackend(InOrder(ScriptedLine(ADD, 0.5), "It is 7."))
    built = create_agent(
        ChatVLLMUncertainty(backend=backend),
        [add],
        middleware=[
            HumanInTheLoopMiddleware({"add": True}),
            UncertaintyGateMiddleware(UNCERTAIN, retries=0, then="annotate"),
        ],
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    assert "__interrupt__" in built.invoke(question(), thread)
    action = {"name": "add", "args": {"a": 3, "b": 4}}
    decisions = [{"type": "edit", "edited_action": action}]
    messages = built.invoke(Command(resume={"decisions": decisions}), thread)["messages"]
    assert (ran, messages[-1].content) == ([(3, 4)], "It is 7.")


class Total(BaseModel):
    """The total."""

    value: int


@pytest.mark.parametrize(
    ("said", "strategy", "tools"),
    [
        (call("Total", value=3), ToolStrategy(Total), []),
        (call("Total", value=3), ToolStrategy(Total), [add]),
        ('{"value": 3}', ProviderStrategy(Total), []),
    ],
)
async def test_an_abstention_where_an_object_was_due_is_an_error_with_the_draft(
    said, strategy, tools
):
    backend = ScriptedBackend([ScriptedLine(said, 0.5)])
    chat = ChatVLLMUncertainty(
        backend=backend, uncertain_when=UNCERTAIN, on_high_uncertainty="abstain"
    )
    built = create_agent(chat, tools, response_format=strategy)
    with pytest.raises(errors.HighUncertaintyError, match=r"perplexity > 1\.65") as caught:
        built.invoke(question())
    assert '"value": 3' in caught.value.text
    assert caught.value.uncertainty["scores"]["perplexity"] > 1.65
    with pytest.raises(errors.HighUncertaintyError):
        await built.ainvoke(question())
    with pytest.raises(errors.HighUncertaintyError):
        list(built.stream(question(), stream_mode="messages"))


def test_a_gate_samples_again_where_the_model_itself_abstains_or_raises():
    for action in ("abstain", "raise"):
        lines = [ScriptedLine(call("Total", value=one), p) for one, p in ((3, 0.5), (4, 0.9))]
        chat = scripted(*lines, uncertain_when=UNCERTAIN, on_high_uncertainty=action)
        gate = UncertaintyGateMiddleware()
        built = create_agent(chat, [], middleware=[gate], response_format=ToolStrategy(Total))
        assert built.invoke(question())["structured_response"] == Total(value=4)


class Unmeasured(AgentMiddleware):
    """Takes away the scores of calls."""

    def after_model(self, state, runtime):
        message = state["messages"][-1]
        if not message.tool_calls:
            return None
        metadata = dict(message.response_metadata)
        metadata["uncertainty"] = {**metadata["uncertainty"], "tool_calls": []}
        return {"messages": [message.model_copy(update={"response_metadata": metadata})]}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("allow", "expected"), [(False, []), (True, [(1, 2)])])
def test_a_call_without_scores_is_run_only_where_they_may_be_missing(streaming, allow, expected):
    script = ScriptedBackend(InOrder(ADD, "It is 3."))
    gate = UncertaintyGateMiddleware(UNCERTAIN, allow_unscored=allow)
    chat = ChatVLLMUncertainty(backend=script, streaming=streaming)
    built = create_agent(chat, [add], middleware=[gate, Unmeasured()])
    messages = built.invoke(question())["messages"]
    assert ran == expected
    (result,) = [one for one in messages if one.type == "tool"]
    assert ("has no scores" in result.content) is not allow


CUT_ADDS = [
    ADD[:-20],
    '<tool_call>{"name": "add"',
    '<tool_call>{"name": "add", "arguments": {"a": 1',
]


@pytest.mark.parametrize("said", CUT_ADDS)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("then", ["raise", "annotate"])
def test_an_agent_runs_no_call_that_was_cut(said, streaming, then):
    chat = scripted(said, streaming=streaming)
    gate = UncertaintyGateMiddleware(UNCERTAIN, then=then)
    built = create_agent(chat, [add], middleware=[gate])
    for mode in ("values", "messages"):
        list(built.stream(question(), stream_mode=mode))
    assert ran == []
