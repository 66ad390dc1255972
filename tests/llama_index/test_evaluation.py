"""The evaluator, by itself and in LlamaIndex's own retry engine."""

import pytest
from llama_index.core import Settings
from llama_index.core.query_engine import RetryQueryEngine

from tests.llama_index.scripted import in_order, prompts, scripted
from tests.llama_index.test_query_engine import DOUBTFUL, UNCERTAIN, engine
from uq_llm_integrations import ScriptedLine, errors
from uq_llm_integrations.llama_index import UncertaintyEvaluator, UncertaintyQueryEngine


@pytest.mark.parametrize(("probability", "passing"), [(0.9, True), (0.3, False)])
async def test_it_passes_what_is_certain_enough(probability, passing):
    response = UncertaintyQueryEngine(engine(scripted([ScriptedLine("x", probability)]))).query("?")
    evaluator = UncertaintyEvaluator(UNCERTAIN)
    result = evaluator.evaluate_response("?", response)
    assert result.passing is passing
    assert result.score == response.metadata["uncertainty"]["final"]["scores"]["perplexity"]
    assert (result.query, result.response) == ("?", "x")
    assert await evaluator.aevaluate_response("?", response) == result


def test_any_method_can_be_the_score():
    response = UncertaintyQueryEngine(engine(scripted())).query("?")
    result = UncertaintyEvaluator(UNCERTAIN, method="entropy").evaluate_response("?", response)
    assert result.score == response.metadata["uncertainty"]["final"]["scores"]["entropy"]


def test_what_has_no_scores_cannot_be_evaluated():
    evaluator = UncertaintyEvaluator(UNCERTAIN)
    with pytest.raises(errors.InvalidRequestError, match="no scores"):
        evaluator.evaluate_response("?", engine(scripted()).query("?"))
    with pytest.raises(errors.InvalidRequestError, match="a text alone"):
        evaluator.evaluate(query="?", response="Paris.")


@pytest.mark.parametrize("streaming", [False, True])
def test_llama_indexs_retry_engine_asks_again_with_feedback(streaming):
    Settings.llm = llm = in_order(DOUBTFUL, "Paris.")
    scored = UncertaintyQueryEngine(engine(llm, streaming=streaming))
    retrying = RetryQueryEngine(scored, UncertaintyEvaluator(UNCERTAIN), max_retries=1)
    assert str(retrying.query("Which city?")) == "Paris."
    first, second = prompts(llm)
    assert "too uncertain" not in first
    assert "too uncertain" in second


def test_the_feedback_says_why_there_is_no_score():
    nobodys = UncertaintyQueryEngine(engine(scripted(), texts=())).query("?")
    result = UncertaintyEvaluator(UNCERTAIN).evaluate_response("?", nobodys)
    assert not result.passing
    assert result.feedback.endswith("no model with scores has said it.")
    given = UncertaintyQueryEngine(engine(scripted(token_scores=True))).query("?")
    feedback = (
        UncertaintyEvaluator("token_max(entropy) > 99").evaluate_response("?", given).feedback
    )
    assert "None" not in feedback
    other = UncertaintyEvaluator(UNCERTAIN, method="mean_nll").evaluate_response("?", given)
    assert other.feedback.endswith("mean_nll is not known: it was not requested.")
