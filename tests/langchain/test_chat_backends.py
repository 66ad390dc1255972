"""LangChain's chat classes on transformers, and on vLLM with a look inside the model."""

from collections.abc import Iterator

import pytest
from langchain_core.tools import tool
from pydantic import BaseModel

from tests.conftest import ENGINE_ARGUMENTS
from tests.langchain.scripted_chat import metadata_of, whole
from uq_llm_integrations import (
    ChatHuggingFaceUncertainty,
    ChatHybridUncertainty,
    InvalidRequestError,
)

pytestmark = pytest.mark.engine

QUESTION = "What is the capital of France?"
GREEDY = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatHuggingFaceUncertainty]:
    chat = ChatHuggingFaceUncertainty(model="smollm2", methods=["perplexity", "rauq"], **GREEDY)
    yield chat
    chat.backend.close()


@pytest.fixture(scope="module")
def hybrid(backend) -> ChatHybridUncertainty:
    """It meets the test run's engine by its arguments."""
    methods = ["perplexity", "rauq"]
    return ChatHybridUncertainty(model="smollm2", methods=methods, vllm=ENGINE_ARGUMENTS, **GREEDY)


def test_both_give_the_same_answer_with_the_same_scores(chat, hybrid):
    one, other = chat.invoke(QUESTION), hybrid.invoke(QUESTION)
    assert "Paris" in one.content
    assert one.content == other.content
    assert one.usage_metadata == other.usage_metadata
    assert metadata_of(one)["scores"] == pytest.approx(metadata_of(other)["scores"], rel=1e-3)


async def test_transformers_answers_are_streamed_with_their_scores(chat):
    streamed = whole([chunk async for chunk in chat.astream(QUESTION)])
    invoked = await chat.ainvoke(QUESTION)
    assert streamed.content == invoked.content
    expected = metadata_of(invoked)["scores"]
    assert metadata_of(streamed)["scores"] == pytest.approx(expected, rel=1e-3)


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


class Capital(BaseModel):
    city: str


def test_transformers_cannot_be_held_to_a_form(chat):
    for held in (
        chat.bind_tools([multiply], tool_choice="multiply"),
        chat.with_structured_output(Capital),
    ):
        with pytest.raises(InvalidRequestError, match="structured_outputs"):
            held.invoke(QUESTION)
