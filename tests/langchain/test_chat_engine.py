"""LangChain's chat class on the real engine."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Optional

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from tests.conftest import ENGINE_ARGUMENTS
from tests.langchain.scripted_chat import metadata_of, whole
from uq_llm_integrations import ChatVLLMUncertainty, EngineTimeoutError, errors

pytestmark = pytest.mark.engine

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def chat(backend) -> ChatVLLMUncertainty:
    """It names the model, and meets the test run's engine by its arguments."""
    chat = ChatVLLMUncertainty(model="smollm2", temperature=0, max_tokens=24, **ENGINE_ARGUMENTS)
    assert chat.backend.start() is backend.start()
    return chat


def test_a_question_is_answered_in_the_models_chat_template(chat, capital_ids):
    message = chat.invoke(QUESTION)
    assert "Paris" in message.content
    assert message.usage_metadata["input_tokens"] == len(capital_ids)
    assert 1 < metadata_of(message)["scores"]["perplexity"] < 2
    assert metadata_of(message)["exact"] and not metadata_of(message)["grammar"]


async def test_a_stream_adds_up_to_the_answer_with_live_scores(chat):
    chunks = [chunk async for chunk in chat.astream(QUESTION, token_scores=True, top_logprobs=2)]
    invoked = await chat.ainvoke(QUESTION, token_scores=True)
    streamed = whole(chunks)
    assert streamed.content == invoked.content
    expected, metadata = metadata_of(invoked), metadata_of(streamed)
    assert metadata["by_token"]["token"] == expected["by_token"]["token"]
    for name in ("logprob", "entropy"):
        live = metadata["by_token"][name]
        assert live == pytest.approx(expected["by_token"][name], abs=1e-3)
    assert metadata["scores"] == pytest.approx(expected["scores"], abs=1e-3)
    content = streamed.response_metadata["logprobs"]["content"]
    assert [len(entry["top_logprobs"]) for entry in content] == [2] * metadata["tokens"]
    assert content[0]["top_logprobs"][0]["token"] == content[0]["token"]  # greedy
    assert len(chunks) > 2 and metadata_of(chunks[1])["by_token"]["entropy"]


def test_several_answers(chat):
    (answers,) = chat.generate([[HumanMessage("Name a colour.")]], n=3, temperature=1.0).generations
    usages = [one.message.usage_metadata for one in answers]
    generated = sum(metadata_of(one.message)["tokens"] for one in answers)
    assert [one["output_tokens"] for one in usages] == [generated, 0, 0]
    assert [bool(one["input_tokens"]) for one in usages] == [True, False, False]


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def test_a_call_that_must_come_is_valid_and_has_scores(chat):
    forced = chat.bind_tools([multiply], tool_choice="multiply", max_tokens=64)
    message = forced.invoke("What is 6 times 7?")
    (tool_call,) = message.tool_calls
    assert set(tool_call["args"]) == {"a", "b"}
    (scored,) = metadata_of(message)["tool_calls"]
    assert scored["id"] == tool_call["id"] and set(scored["fields"]) == {"a", "b"}
    assert metadata_of(message)["grammar"] is True


def test_tokens_are_counted_as_the_engine_gets_them(chat, capital_ids):
    assert chat.get_num_tokens_from_messages([HumanMessage(QUESTION)]) == len(capital_ids)
    message = chat.bind_tools([multiply]).invoke(QUESTION, max_tokens=1)
    counted = chat.get_num_tokens_from_messages([HumanMessage(QUESTION)], tools=[multiply])
    assert message.usage_metadata["input_tokens"] == counted


@pytest.mark.parametrize("verb", ["invoke", "stream"])
def test_no_more_than_one_call_is_forced(chat, verb):
    forced = chat.bind_tools([multiply], tool_choice="any", parallel_tool_calls=False)
    said, options = "What are 6 times 7 and 8 times 9?", {"max_tokens": 200}
    message = (
        forced.invoke(said, **options)
        if verb == "invoke"
        else whole(forced.stream(said, **options))
    )
    assert len(message.tool_calls) == 1
    assert message.response_metadata["finish_reason"] != "length", "the grammar ends with the call"


@pytest.mark.parametrize("verb", ["invoke", "stream"])
def test_an_answer_goes_on_with_its_beginning(chat, verb):
    begun = [HumanMessage(QUESTION), AIMessage("The capital of France is")]
    bound = chat.bind(continue_final_message=True)
    message = bound.invoke(begun) if verb == "invoke" else whole(bound.stream(begun))
    assert message.content.split()[0].strip(".,*") == "Paris"


async def test_a_stream_that_waits_too_long_is_an_error_and_the_engine_goes_on(chat):
    with pytest.raises(EngineTimeoutError, match="no next piece within"):
        async for _ in chat.astream(QUESTION, timeout=1e-4):
            pass
    with pytest.raises(EngineTimeoutError, match="no next piece within"):
        list(chat.stream(QUESTION, timeout=1e-4))
    assert "Paris" in (await chat.ainvoke(QUESTION)).content


class Capital(BaseModel):
    city: str
    country: str


def test_an_answer_by_schema_has_a_score_for_each_field(chat):
    structured = chat.with_structured_output(Capital, include_raw=True, max_tokens=64)
    answer = structured.invoke(QUESTION + " Answer in JSON.")
    assert answer["parsed"] == Capital(**json.loads(answer["raw"].content))
    assert set(metadata_of(answer["raw"])["fields"]) == {"city", "country"}
    assert metadata_of(answer["raw"])["grammar"] is True


def test_with_tools_and_a_schema_the_model_calls_or_answers_by_the_schema(chat):
    form = {"name": "capital", "schema": Capital.model_json_schema()}
    bound = chat.bind_tools(
        [multiply], response_format={"type": "json_schema", "json_schema": form}, max_tokens=64
    )
    message = bound.invoke(QUESTION + " Answer in JSON.")
    if message.tool_calls:
        assert [set(one["args"]) for one in message.tool_calls] == [{"a", "b"}]
    else:
        assert Capital(**json.loads(message.content))
    assert metadata_of(message)["grammar"] is True


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_object_that_the_engine_cut_is_an_error_at_once_and_in_a_stream(chat, method):
    cut = chat.with_structured_output(Capital, method=method, max_tokens=8)
    for ask in (cut.invoke, lambda text: list(cut.stream(text))):
        with pytest.raises(errors.IncompleteAnswerError, match="max_tokens"):
            ask(QUESTION)


@pytest.mark.parametrize("tokens", [2, 8, 16])
def test_a_forced_call_that_the_engine_cut_is_invalid_at_once_and_in_a_stream(chat, tokens):
    forced = chat.bind_tools([multiply], tool_choice="multiply", max_tokens=tokens, temperature=0)
    for message in (forced.invoke(QUESTION), whole(forced.stream(QUESTION))):
        (invalid,) = message.invalid_tool_calls
        assert invalid["name"] == "multiply" and "max_tokens" in invalid["error"]
        assert (message.tool_calls, message.content) == ([], "")
        assert message.response_metadata["finish_reason"] == "length"


class Appointment(BaseModel):
    """Kinds of fields that grammars once refused."""

    when: datetime
    price: Decimal
    tags: set[str]
    follow_up: Optional["Appointment"] = None


def test_the_engine_takes_the_schema_of_a_recursive_class_with_odd_fields(chat):
    made = chat.with_structured_output(Appointment, include_raw=True, max_tokens=200)
    answer = made.invoke("Make an appointment.")
    assert isinstance(answer["parsed"], Appointment) or isinstance(
        answer["parsing_error"], errors.IncompleteAnswerError
    )
