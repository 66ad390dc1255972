"""LangChain's completion class on the real engine: the main job."""

import pytest

from tests.conftest import ENGINE_ARGUMENTS
from uq_llm_integrations import VLLMUncertaintyLLM
from uq_llm_integrations.langchain import UncertaintyCallbackHandler

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def llm(backend) -> VLLMUncertaintyLLM:
    """It names the model, and meets the test run's engine by its arguments."""
    llm = VLLMUncertaintyLLM(
        model="smollm2", chat_template=True, temperature=0, max_tokens=24, **ENGINE_ARGUMENTS
    )
    assert llm.backend.start() is backend.start()
    return llm


def test_a_question_is_answered_with_its_uncertainty(llm):
    text, uncertainty = llm.invoke_with_scores("What is the capital of France?")
    assert "Paris" in text
    assert uncertainty["exact"]
    assert 1 < uncertainty["scores"]["perplexity"] < 2
    assert 0 < uncertainty["scores"]["entropy"] < 2
    assert uncertainty["tokens"] == 8


def test_a_batch_answers_each_question(llm):
    places = ("France", "Italy", "Japan")
    answers = llm.batch([f"What is the capital of {place}?" for place in places])
    assert "Paris" in answers[0]
    assert [place in text for place, text in zip(places, answers, strict=True)] == [True] * 3


async def test_streaming_gives_the_answer_of_invoke_with_its_scores(llm):
    handler = UncertaintyCallbackHandler()
    question = "What is the capital of France?"
    chunks = [chunk async for chunk in llm.astream(question, config={"callbacks": [handler]})]
    text, uncertainty = await llm.ainvoke_with_scores(question)
    assert len(chunks) > 2
    assert "".join(chunks) == text
    streamed = handler.calls[0].uncertainty["scores"]
    assert streamed == pytest.approx(uncertainty["scores"], abs=1e-3)


def test_token_scores_line_up_with_the_text(llm):
    text, uncertainty = llm.invoke_with_scores("Name a colour.", token_scores=True, temperature=1.0)
    by_token = uncertainty["by_token"]
    assert "".join(by_token["token"]).startswith(text)
    assert {len(values) for values in by_token.values()} == {uncertainty["tokens"]}
