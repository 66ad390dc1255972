"""LlamaIndex's class on the real engine: chat, streams, tools, objects, and a query engine."""

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.tools import FunctionTool
from llama_index.retrievers.bm25 import BM25Retriever
from pydantic import BaseModel

from tests.conftest import ENGINE_ARGUMENTS
from tests.llama_index.scripted import question
from uq_llm_integrations import score
from uq_llm_integrations.llama_index import (
    UncertaintyEventHandler,
    UncertaintyQueryEngine,
    VLLMUncertaintyLLM,
)

pytestmark = pytest.mark.engine

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def llm(backend) -> VLLMUncertaintyLLM:
    """It names the model, and meets the test run's engine by its arguments."""
    llm = VLLMUncertaintyLLM(model="smollm2", temperature=0, max_tokens=24, **ENGINE_ARGUMENTS)
    assert llm.backend.start() is backend.start()
    return llm


def test_metadata_are_the_engines(llm):
    assert llm.metadata.context_window == ENGINE_ARGUMENTS["max_model_len"]
    assert llm.metadata.num_output == 24


def test_a_question_is_answered_with_its_uncertainty(llm):
    response = llm.chat(question(QUESTION))
    assert "Paris" in response.message.content
    uncertainty = response.additional_kwargs["uncertainty"]
    assert uncertainty["exact"]
    assert 1 < uncertainty["scores"]["perplexity"] < 2
    assert llm.complete(QUESTION).text == response.message.content


def test_a_conversation_goes_on_from_an_answer(llm):
    answer = llm.chat(question(QUESTION)).message
    system = ChatMessage(role=MessageRole.SYSTEM, content="Be brief.")
    again = llm.chat([system, *question(QUESTION), answer, *question("And of Italy?")])
    assert "Rome" in again.message.content


async def test_a_stream_is_followed_token_by_token(llm):
    stream = await llm.astream_chat(question(QUESTION), token_scores=True, top_logprobs=2)
    *parts, last = [part async for part in stream]
    assert len(parts) > 2
    whole = await llm.achat(question(QUESTION), token_scores=True)
    assert last.message.content == whole.message.content
    streamed, returned = (one.additional_kwargs["uncertainty"] for one in (last, whole))
    assert streamed["scores"] == pytest.approx(returned["scores"], abs=1e-3)
    live = [
        value
        for part in parts
        for value in part.additional_kwargs["uncertainty"]["by_token"]["entropy"]
    ]
    assert live == pytest.approx(streamed["by_token"]["entropy"][: len(live)], abs=1e-6)
    assert [len(position) for position in last.logprobs] == [3] * streamed["tokens"]


def test_a_stream_is_cut_off_where_it_becomes_too_uncertain(llm):
    *_, last = llm.stream_complete(QUESTION, stop_if=score("maxprob") > 0.2)
    assert last.additional_kwargs["finish_reason"] == "early_stop"
    assert last.additional_kwargs["uncertainty"]["tokens"] < 8


def weather(city: str, celsius: bool) -> str:
    """Return the weather in a city."""
    return f"sunny in {city}, {celsius}"


def test_a_required_tool_is_called_by_grammar_and_each_argument_is_scored(llm):
    tool = FunctionTool.from_defaults(weather)
    response = llm.chat_with_tools(
        [tool], "How is the weather in Paris?", tool_required=True, max_tokens=80
    )
    (selection,) = llm.get_tool_calls_from_response(response)
    assert selection.tool_name == "weather"
    assert isinstance(selection.tool_kwargs["celsius"], bool)
    uncertainty = response.additional_kwargs["uncertainty"]
    assert uncertainty["grammar"]
    (called,) = uncertainty["tool_calls"]
    assert set(called["fields"]) == {"city", "celsius"}
    assert all(one["perplexity"] >= 0 for one in called["fields"].values())


class Country(BaseModel):
    """A country."""

    name: str
    capital: str


def test_an_object_follows_its_schema_and_each_field_is_scored(llm, registered):
    handler = registered(UncertaintyEventHandler())
    prompt = PromptTemplate("Write about {name} as JSON.")
    country = llm.structured_predict(
        Country, prompt, name="Italy", llm_kwargs={"max_tokens": 80, "seed": 1}
    )
    assert isinstance(country, Country)
    fields = handler.calls[0].uncertainty["fields"]
    assert set(fields) == {"name", "capital"}
    assert all(one["entropy"] >= 0 for one in fields.values())


def test_a_query_engine_returns_how_sure_the_answer_is(llm):
    nodes = [
        TextNode(text="The module zipfile reads and writes ZIP archives."),
        TextNode(text="The module statistics computes medians."),
    ]
    retriever = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=1)
    inner = RetrieverQueryEngine.from_args(retriever, llm=llm)
    response = UncertaintyQueryEngine(inner).query("Which module reads ZIP archives?")
    assert "zipfile" in str(response)
    metadata = response.metadata["uncertainty"]
    assert (len(metadata["calls"]), metadata["decision"]) == (1, "accepted")
    perplexity = metadata["final"]["scores"]["perplexity"]
    careful = UncertaintyQueryEngine(inner, score("perplexity") > perplexity - 0.01, "abstain")
    assert careful.query("Which module reads ZIP archives?").metadata["uncertainty"]["uncertain"]
