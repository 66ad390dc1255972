"""Objects are whole or an error, whatever the schema, the method and the way to call are."""

import json
import pickle
from datetime import date
from decimal import Decimal
from typing import TypedDict

import pytest
from pydantic import BaseModel, ConfigDict, RootModel

from tests.langchain.scripted_chat import call, metadata_of, scripted, whole
from uq_llm_integrations import EarlyStop, ScriptedLine, errors


class Person(BaseModel):
    """A person."""

    name: str
    friends: list[str] = []


class PersonDict(TypedDict):
    """A person."""

    name: str
    friends: list[str]


SAID = '{"name": "Ann", "friends": ["Bo", "Cy"]}'
MADE = call("Person", name="Ann", friends=["Bo", "Cy"])
SCHEMAS = (Person, PersonDict, Person.model_json_schema())
METHODS = ("json_schema", "json_mode", "function_calling")


def saying(schema=Person, method="json_schema"):
    said = MADE if method == "function_calling" else SAID
    return said.replace("Person", getattr(schema, "__name__", "Person"))


def cut(schema=Person, method="json_schema"):
    """A limit within a list, where a mended one would be right."""
    return saying(schema, method).index('"Cy')


def due(schema=Person, method="json_schema", include_raw=False, said=None, **options):
    said = said or saying(schema, method)
    chat = scripted(said, **options)
    return chat.with_structured_output(schema, method=method, include_raw=include_raw)


async def answers(chain, way):
    """What each way to call a chain gives, as a list."""
    match way:
        case "invoke":
            return [chain.invoke("?")]
        case "ainvoke":
            return [await chain.ainvoke("?")]
        case "batch":
            return chain.batch(["?", "?"])
        case "stream":
            return list(chain.stream("?"))
    return [one async for one in chain.astream("?")]


WAYS = ("invoke", "ainvoke", "batch", "stream", "astream")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("method", METHODS)
async def test_an_object_that_max_tokens_cut_is_an_error_that_says_so(schema, method, way):
    chain = due(schema, method, max_tokens=cut(schema, method))
    with pytest.raises(errors.IncompleteAnswerError, match="max_tokens") as caught:
        await answers(chain, way)
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.finish_reason == "length"
    assert error.text.rstrip().endswith('["Bo",')
    assert error.uncertainty["scores"]["perplexity"] == pytest.approx(1 / 0.9)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
async def test_with_the_raw_message_it_is_the_parsing_error(method, way):
    chain = due(method=method, include_raw=True, max_tokens=cut(method=method))
    given = await answers(chain, way)
    answer = whole(given if "stream" in way else given[:1])
    assert answer["parsed"] is None
    assert isinstance(answer["parsing_error"], errors.IncompleteAnswerError)
    assert answer["raw"].response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize("method", METHODS)
def test_a_stop_string_within_an_object_is_an_error(method):
    with pytest.raises(errors.IncompleteAnswerError, match="stop string") as caught:
        due(method=method, stop=["Cy"]).invoke("?")
    assert caught.value.finish_reason == "stop"


def test_an_early_stop_within_an_object_is_an_error():
    with pytest.raises(errors.IncompleteAnswerError, match="too uncertain") as caught:
        due(method="function_calling", early_stop=EarlyStop(0.1, window=30)).invoke("?")
    assert caught.value.finish_reason == "early_stop"


def test_a_stream_that_is_too_uncertain_to_go_on_gives_no_object():
    chain = due(PersonDict, stop_if="token_max(entropy) > 0.1", methods=["perplexity"])
    with pytest.raises(errors.IncompleteAnswerError) as caught:
        list(chain.stream("?"))
    assert caught.value.finish_reason == "early_stop"


def test_a_stream_shows_a_dict_as_it_grows_and_then_the_error():
    shown = []
    with pytest.raises(errors.IncompleteAnswerError):
        for partial in due(PersonDict, max_tokens=cut()).stream("?"):
            shown.append(partial)
    assert shown[-1] == {"name": "Ann", "friends": ["Bo"]}


def test_a_stream_shows_an_object_of_a_class_once_it_is_whole():
    assert list(due().stream("?")) == [Person(name="Ann", friends=["Bo", "Cy"])]


def test_an_object_that_is_whole_may_be_cut_behind_it():
    chain = due(said=SAID + "  ", max_tokens=len(SAID) + 1)
    assert chain.invoke("?").friends == ["Bo", "Cy"]


def test_a_number_that_was_cut_may_have_gone_on():
    schema = {"title": "age", "type": "integer"}
    assert due(schema, said="123").invoke("?") == 123
    with pytest.raises(errors.IncompleteAnswerError):
        due(schema, said="123", max_tokens=2).invoke("?")


@pytest.mark.parametrize("arguments", ["[1]", '"x"', "3", "{"])
def test_a_call_without_an_object_is_none(arguments):
    said = f'<tool_call>{{"name": "Person", "arguments": {arguments}}}</tool_call>'
    with pytest.raises(errors.InvalidAnswerError, match="Person"):
        due(method="function_calling", said=said).invoke("?")


def test_an_answer_without_the_call_says_what_it_is():
    with pytest.raises(errors.InvalidAnswerError, match="I am Ann"):
        due(method="function_calling", said="I am Ann.").invoke("?")


DOUBTED = {"uncertain_when": "mean_nll > 0", "on_high_uncertainty": "abstain"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", METHODS)
async def test_an_abstention_has_the_draft_and_its_scores(method, way):
    with pytest.raises(errors.HighUncertaintyError) as caught:
        await answers(due(method=method, **DOUBTED), way)
    assert caught.value.text == (MADE if method == "function_calling" else SAID)
    assert "perplexity" in caught.value.uncertainty["scores"]
    answer = whole(await answers(due(method=method, include_raw=True, **DOUBTED), "stream"))
    assert isinstance(answer["parsing_error"], errors.HighUncertaintyError)
    assert metadata_of(answer["raw"])["decision"] == "abstained"


def test_an_abstention_from_a_response_format_is_an_error_too():
    bound = scripted(SAID, **DOUBTED).bind(response_format={"type": "json_object"})
    for ask in (bound.invoke, lambda text: list(bound.stream(text))):
        with pytest.raises(errors.HighUncertaintyError) as caught:
            ask("?")
        assert caught.value.text == SAID
        assert set(caught.value.uncertainty["fields"]) >= {"name"}


def test_json_that_the_model_ended_by_itself_is_not_mended():
    with pytest.raises(errors.IncompleteAnswerError, match="itself"):
        due(PersonDict, said='{"name": "Ann"').invoke("?")


def test_a_chain_of_objects_can_be_pickled():
    chain = due(said=ScriptedLine(SAID, 0.5))
    assert pickle.loads(pickle.dumps(chain)).invoke("?").name == "Ann"


class Tree(BaseModel):
    """A tree."""

    name: str
    children: list["Tree"] = []


TREE = Tree(name="a", children=[Tree(name="b", children=[Tree(name="c")])])


@pytest.mark.parametrize("schema", [Tree, Tree.model_json_schema()])
@pytest.mark.parametrize("method", METHODS)
def test_a_schema_may_hold_objects_of_its_own_kind(schema, method):
    is_call = method == "function_calling"
    said = call("Tree", **TREE.model_dump()) if is_call else TREE.model_dump_json()
    chat = scripted(said)
    found = chat.with_structured_output(schema, method=method).invoke("?")
    assert found == (TREE if schema is Tree else json.loads(TREE.model_dump_json()))
    (request,) = chat.backend.requests
    if is_call:
        given = request.conversation.tools[0]["function"]["parameters"]
    elif method == "json_schema":
        given = request.sampling["structured_outputs"]["json"]
    else:
        return
    assert given["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


def test_a_tool_may_take_objects_of_their_own_kind():
    chat = scripted("Hi.")
    chat.bind_tools([Tree]).invoke("?")
    parameters = chat.backend.requests[0].conversation.tools[0]["function"]["parameters"]
    assert parameters["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


class Strictly(BaseModel):
    model_config = ConfigDict(strict=True)

    when: date
    price: Decimal


@pytest.mark.parametrize("method", METHODS)
def test_values_are_read_as_pydantic_reads_json(method):
    given = {"when": "2024-02-29", "price": "1.10"}
    said = call("Strictly", **given) if method == "function_calling" else json.dumps(given)
    found = scripted(said).with_structured_output(Strictly, method=method).invoke("?")
    assert found == Strictly(when=date(2024, 2, 29), price=Decimal("1.10"))


@pytest.mark.parametrize("method", ["json_mode", "function_calling"])
def test_what_is_no_object_is_refused_where_only_objects_are_served(method):
    with pytest.raises(errors.ConfigurationError, match="'array'"):
        scripted().with_structured_output(RootModel[list[int]], method=method)
    numbers = scripted("[1, 2]").with_structured_output(RootModel[list[int]])
    assert numbers.invoke("?").root == [1, 2]


def test_a_schema_may_have_several_types():
    schema = {"title": "A", "type": ["object", "null"]}
    assert scripted("null").with_structured_output(schema).invoke("?") is None
