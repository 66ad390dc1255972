"""Predicting objects, on a backend that answers from a script."""

import pytest
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, ValidationError

from tests.llama_index.scripted import call, in_order, question, scripted
from uq_llm_integrations import errors, score
from uq_llm_integrations.llama_index import UncertaintyEventHandler


class Country(BaseModel):
    """A country."""

    name: str
    capital: str


SAID = '{"name": "Italy", "capital": "Rome"}'
ITALY = Country(name="Italy", capital="Rome")
PROMPT = PromptTemplate("Write about {name}.")


async def predicted(llm, kind: str, **arguments):
    """What each way to predict an object returns, in the end."""
    given = (Country, PROMPT)
    match kind:
        case "sync":
            return llm.structured_predict(*given, **arguments)
        case "async":
            return await llm.astructured_predict(*given, **arguments)
        case "stream":
            return list(llm.stream_structured_predict(*given, **arguments))[-1]
    stream = await llm.astream_structured_predict(*given, **arguments)
    return [one async for one in stream][-1]


KINDS = pytest.mark.parametrize("kind", ["sync", "async", "stream", "async stream"])


@KINDS
async def test_an_object_is_predicted_by_a_grammar_with_scores_of_its_fields(kind, registered):
    handler = registered(UncertaintyEventHandler())
    llm = scripted([SAID], system_prompt="Be exact.")
    assert await predicted(llm, kind, name="Italy", llm_kwargs={"seed": 3}) == ITALY
    (request,) = llm.backend.requests
    assert request.sampling["structured_outputs"] == {"json": Country.model_json_schema()}
    assert request.sampling["seed"] == 3
    said = [one["content"] for one in request.conversation.messages]
    assert said == ["Be exact.", "Write about Italy."]
    (one,) = handler.calls
    assert set(one.uncertainty["fields"]) == {"name", "capital"}


def test_a_stream_shows_what_there_is():
    *partial, whole = scripted([SAID]).stream_structured_predict(Country, PROMPT, name="Italy")
    assert whole == ITALY
    assert {one.name for one in partial} >= {"Ita", "Italy"}


@KINDS
async def test_no_object_can_say_that_the_model_abstains(kind):
    llm = scripted([SAID], uncertain_when=score("maxprob") > 0, on_high_uncertainty="abstain")
    with pytest.raises(errors.HighUncertaintyError) as caught:
        await predicted(llm, kind, name="Italy")
    assert caught.value.text == SAID
    assert set(caught.value.uncertainty["fields"]) == {"name", "capital"}


def test_an_object_that_was_cut_off_is_an_error():
    with pytest.raises(ValidationError):
        scripted([SAID], max_tokens=10).structured_predict(Country, PROMPT, name="Italy")


@KINDS
async def test_an_object_can_be_the_arguments_of_a_call(kind):
    mode = PydanticProgramMode.FUNCTION
    llm = scripted([call("Country", **ITALY.model_dump())], pydantic_program_mode=mode)
    assert await predicted(llm, kind, name="Italy") == ITALY
    assert llm.backend.requests[0].conversation.tools


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_an_object_can_be_parsed_from_text_without_a_grammar(kind):
    llm = scripted([SAID], pydantic_program_mode=PydanticProgramMode.LLM)
    assert await predicted(llm, kind, name="Italy") == ITALY
    assert "structured_outputs" not in llm.backend.requests[0].sampling


async def test_a_structured_llm_answers_with_objects():
    llm = scripted([SAID]).as_structured_llm(Country)
    assert llm.complete("?").raw == ITALY
    assert (await llm.achat(question())).raw == ITALY
    assert list(llm.stream_chat(question()))[-1].raw == ITALY


def test_a_reply_follows_a_schema_or_calls_tools():
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    llm, given = in_order(SAID, call("f")), {"tools": [tool], "response_schema": {}}
    assert llm.chat(question(), **given).message.content == SAID
    called = llm.chat(question(), **given)
    assert [one.tool_name for one in llm.get_tool_calls_from_response(called)] == ["f"]
