"""Whatever the metadata of an answer hold: conditions read them, or they are refused by name."""

from hypothesis import given
from hypothesis import strategies as st
from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import AIMessage
from llama_index.core.base.response.schema import Response

from tests.fuzzing import JSON, changes, fuzz
from uq_llm_integrations import ScriptedBackend, UncertaintyError, UncertaintyModel
from uq_llm_integrations.langchain import UncertaintyGate, UncertaintyGateMiddleware
from uq_llm_integrations.llama_index import UncertaintyEvaluator
from uq_llm_integrations.report.metadata import is_uncertain, part_metadata
from uq_llm_integrations.strategies.condition_text import parse_condition


def written() -> dict:
    """The metadata of an answer, with those of its tokens."""
    methods = ["entropy", "perplexity", "maxprob"]
    with UncertaintyModel(ScriptedBackend(["Pa"]), methods=methods, token_scores=True) as model:
        (reply,) = model.chat("?").replies
    return dict(reply.uncertainty)


WHOLE = written() | {
    "intervals": {"perplexity": [1.0, 2.0]},
    "reasons": {"maxprob": "only the top is known"},
    "approved": False,
    "grounding": {"support": 0.4},
    "tool_calls": [{"name": "add", "id": "1", "scores": {"entropy": 0.3}}],
}
CALL = {"name": "add", "args": {}, "id": "1", "type": "tool_call"}
PART = {"name": "add", "tokens": [0, 1], "scores": {"entropy": 0.3}, "uncertain": False}
CONDITIONS = st.sampled_from(
    [
        None,
        "entropy > 1",
        "perplexity > 1.5 or maxprob < 0.2",
        "token_max(entropy) > 1",
        "support < 0.5",
        "worst_window(entropy, 2) > 0.5 and not entropy > 3",
    ]
)


@fuzz(200)
@given(changes(WHOLE) | JSON, CONDITIONS)
def test_a_gate_reads_or_refuses_any_metadata(metadata, condition):
    answer = AIMessage("Paris", response_metadata={"uncertainty": metadata})
    try:
        assert UncertaintyGate(condition).invoke(answer) is answer
    except UncertaintyError as error:
        assert str(error)


@fuzz(200)
@given(changes(WHOLE) | JSON, CONDITIONS)
def test_so_does_a_guard_of_tools(metadata, condition):
    message = AIMessage("", tool_calls=[CALL], response_metadata={"uncertainty": metadata})
    guard = UncertaintyGateMiddleware(condition, guard_tools=True)
    request = ToolCallRequest(CALL, None, {"messages": [message]}, None)
    try:
        answer = guard.wrap_tool_call(request, lambda _: "ran")
    except UncertaintyError as error:
        assert str(error)
    else:
        assert answer == "ran" or "was not run" in answer.content


@fuzz(200)
@given(changes({"final": WHOLE, "parts": [WHOLE, None]}) | JSON, CONDITIONS.filter(bool))
def test_so_does_an_evaluator(metadata, condition):
    response = Response("Paris", metadata={"uncertainty": metadata})
    try:
        found = UncertaintyEvaluator(condition).evaluate_response("?", response)
    except UncertaintyError as error:
        assert str(error)
    else:
        assert found.passing in (True, False)


@fuzz(200)
@given(changes(WHOLE) | JSON, changes(PART) | JSON, CONDITIONS)
def test_those_of_a_part_are_read_or_refused(whole, part, condition):
    when = None if condition is None else parse_condition(condition)
    try:
        assert is_uncertain(when, part_metadata(whole, part)) in (True, False)
    except UncertaintyError as error:
        assert str(error)
