"""Gates in chains, with LangChain's own retries and fallbacks behind them."""

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from tests.langchain.scripted_chat import metadata_of, scripted
from uq_llm_integrations import (
    ScriptedBackend,
    ScriptedLine,
    VLLMUncertaintyLLM,
    agreement,
    errors,
    score,
    worst_window,
)
from uq_llm_integrations.langchain import UncertaintyGate
from uq_llm_integrations.strategies.conditions import Custom

SURE, UNSURE = ScriptedLine("sure", 0.9), ScriptedLine("unsure", 0.5)
UNCERTAIN = score("perplexity") > 1.65
GATE = UncertaintyGate(UNCERTAIN)


def test_a_certain_answer_passes_as_it_is():
    message = (scripted(SURE) | GATE).invoke("?")
    assert message.content == "sure" and metadata_of(message)["scores"]


@pytest.mark.parametrize("verb", ["invoke", "stream"])
def test_an_uncertain_answer_does_not_pass(verb):
    chain = scripted(UNSURE) | GATE
    with pytest.raises(errors.HighUncertaintyError, match=r"perplexity > 1\.65") as caught:
        list(getattr(chain, verb)("?"))
    assert caught.value.text == "unsure"
    assert caught.value.uncertainty["scores"]["perplexity"] > 0.5
    assert caught.value.is_retryable


async def test_an_uncertain_answer_does_not_pass_async():
    with pytest.raises(errors.HighUncertaintyError):
        await (scripted(UNSURE) | GATE).ainvoke("?")


def test_a_gate_makes_langchain_try_again_and_then_ask_another_model():
    model, bigger = scripted(UNSURE, UNSURE, SURE), scripted("the bigger one knows")
    refused = (errors.HighUncertaintyError,)
    gated = (model | GATE).with_retry(
        retry_if_exception_type=refused, stop_after_attempt=2, wait_exponential_jitter=False
    )
    chain = gated.with_fallbacks([bigger], exceptions_to_handle=refused)
    assert chain.invoke("?").content == "the bigger one knows"
    assert len(model.backend.requests) == 2
    assert chain.invoke("?").content == "sure"


def test_without_a_condition_the_models_own_decision_counts():
    for certain, line in ((True, SURE), (False, UNSURE)):
        chain = scripted(line, uncertain_when=UNCERTAIN) | UncertaintyGate()
        if certain:
            assert chain.invoke("?").content == "sure"
        else:
            with pytest.raises(errors.HighUncertaintyError, match=r"perplexity > 1\.65"):
                chain.invoke("?")


def test_a_score_that_was_not_computed_is_an_error_that_names_it():
    chain = scripted(SURE, methods=("entropy",)) | GATE
    with pytest.raises(errors.InvalidRequestError, match=r"methods=\['perplexity'\]"):
        chain.invoke("?")


def test_a_score_that_is_not_known_counts_as_uncertain():
    with pytest.raises(errors.HighUncertaintyError):
        (scripted("", methods=("perplexity",)) | GATE).invoke("?")


def test_a_method_is_known_by_all_its_names():
    gate = UncertaintyGate(score("MeanTokenEntropy") > 1.5)
    assert (scripted(SURE, methods=("entropy",)) | gate).invoke("?").content == "sure"


def test_windows_over_tokens_are_computed_from_token_scores():
    gate = UncertaintyGate(worst_window("entropy", 2) > 1.5)
    assert (scripted(SURE, token_scores=True) | gate).invoke("?").content == "sure"
    with pytest.raises(errors.HighUncertaintyError):
        (scripted(UNSURE, token_scores=True) | gate).invoke("?")
    with pytest.raises(errors.InvalidRequestError, match="token_scores=True"):
        (scripted(SURE) | gate).invoke("?")


def test_a_gate_behind_a_completion_model():
    llm = VLLMUncertaintyLLM(backend=ScriptedBackend([UNSURE]))
    with pytest.raises(errors.HighUncertaintyError):
        (RunnableLambda(llm.invoke_with_scores) | GATE).invoke("?")


class Person(BaseModel):
    name: str


def test_a_gate_behind_an_answer_by_schema():
    for probability in (0.9, 0.5):
        model = scripted(ScriptedLine('{"name": "Ann"}', probability))
        chain = model.with_structured_output(Person, include_raw=True) | GATE
        if probability > 0.6:
            assert chain.invoke("?")["parsed"] == Person(name="Ann")
        else:
            with pytest.raises(errors.HighUncertaintyError):
                chain.invoke("?")


def test_what_a_gate_cannot_judge_is_refused():
    with pytest.raises(errors.ConfigurationError, match="compares samples"):
        UncertaintyGate(agreement() < 0.5)
    with pytest.raises(errors.InvalidRequestError, match="has no scores"):
        GATE.invoke(AIMessage("from elsewhere"))
    with pytest.raises(errors.InvalidRequestError, match="has no scores"):
        GATE.invoke("a text alone")


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        (worst_window("self_certainty", 2) > 100, "reads self_certainty token by token"),
        (Custom(lambda result: False, "never"), "reads a whole result"),
        ((score("entropy") > 1) | Custom(lambda result: False, "never"), "reads a whole result"),
        ((score("entropy") > 1) & (agreement() < 0.5), "compares samples"),
    ],
)
def test_a_condition_that_messages_can_never_answer_is_refused_at_construction(condition, error):
    with pytest.raises(errors.ConfigurationError, match=error):
        UncertaintyGate(condition)


def test_what_has_no_scores_passes_where_that_is_wanted():
    gate = UncertaintyGate(UNCERTAIN, allow_unscored=True)
    assert gate.invoke(AIMessage("from elsewhere")).content == "from elsewhere"
    with pytest.raises(errors.HighUncertaintyError):
        (scripted(UNSURE) | gate).invoke("?")
