"""Predicting objects, on a backend that answers from a script."""

import pytest
from llama_index.core.prompts import PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

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


MODES = pytest.mark.parametrize(
    "mode", [PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION, PydanticProgramMode.LLM]
)


def saying(mode: PydanticProgramMode, **options):
    said = call("Country", **ITALY.model_dump()) if mode is PydanticProgramMode.FUNCTION else SAID
    return scripted([said], pydantic_program_mode=mode, **options), said


@KINDS
@MODES
async def test_an_object_that_was_cut_off_is_an_error_that_says_so(mode, kind):
    llm, said = saying(mode)
    end = said.index(', "capital')
    with pytest.raises(errors.IncompleteAnswerError, match="max_tokens") as caught:
        await predicted(llm, kind, name="Italy", llm_kwargs={"max_tokens": end})
    assert (caught.value.finish_reason, caught.value.uncertainty["tokens"]) == ("length", end)


@KINDS
@MODES
async def test_in_every_mode_an_abstention_has_the_draft_and_its_scores(mode, kind):
    llm, said = saying(mode, uncertain_when="mean_nll > 0", on_high_uncertainty="abstain")
    with pytest.raises(errors.HighUncertaintyError) as caught:
        await predicted(llm, kind, name="Italy")
    assert caught.value.text == said
    assert "perplexity" in caught.value.uncertainty["scores"]


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


DOUBTED = {"uncertain_when": "mean_nll > 0", "on_high_uncertainty": "abstain"}


async def test_a_structured_llm_passes_on_why_there_is_no_object():
    cut = scripted([SAID], max_tokens=10).as_structured_llm(Country)
    for ask in (cut.chat, lambda messages: list(cut.stream_chat(messages))):
        with pytest.raises(errors.IncompleteAnswerError):
            ask(question())
    with pytest.raises(errors.HighUncertaintyError):
        await scripted([SAID], **DOUBTED).as_structured_llm(Country).achat(question())


def test_an_abstention_from_a_response_schema_is_an_error():
    llm = scripted([SAID], **DOUBTED)
    for ask in (llm.chat, lambda *given, **more: list(llm.stream_chat(*given, **more))):
        with pytest.raises(errors.HighUncertaintyError) as caught:
            ask(question(), response_schema=Country)
        assert caught.value.text == SAID
        assert set(caught.value.uncertainty["fields"]) == {"name", "capital"}


class Tree(BaseModel):
    """A tree."""

    name: str
    children: list["Tree"] = []


@KINDS
@MODES
async def test_a_class_may_hold_objects_of_its_own_kind(mode, kind):
    tree = Tree(name="a", children=[Tree(name="b", children=[Tree(name="c")])])
    is_call = mode is PydanticProgramMode.FUNCTION
    said = call("Tree", **tree.model_dump()) if is_call else tree.model_dump_json()
    llm = scripted([said], pydantic_program_mode=mode)
    match kind:
        case "sync":
            assert llm.structured_predict(Tree, PROMPT, name="a") == tree
        case "async":
            assert await llm.astructured_predict(Tree, PROMPT, name="a") == tree
        case _:
            assert list(llm.stream_structured_predict(Tree, PROMPT, name="a"))[-1] == tree
    (request,) = llm.backend.requests
    if is_call:
        parameters = request.conversation.tools[0]["function"]["parameters"]
        assert parameters["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
