"""Tools and answers by schema, on a backend that answers from a script.

The scripted backend knows no grammar, so what a grammar would force is scripted.
"""

import json
import math
from typing import Annotated, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1

from tests.langchain.scripted_chat import call, metadata_of, scripted, whole
from uq_llm_integrations import errors


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize("verb", ["invoke", "stream"])
def test_a_call_is_read_and_scored_with_each_of_its_arguments(verb):
    chat = scripted("Let me see. " + call("add", a=1, b=2)).bind_tools([add])
    message = whole(chat.stream("?")) if verb == "stream" else chat.invoke("?")
    assert message.content.strip() == "Let me see."
    (tool_call,) = message.tool_calls
    assert (tool_call["name"], tool_call["args"]) == ("add", {"a": 1, "b": 2})
    (scored,) = metadata_of(message)["tool_calls"]
    assert (scored["name"], scored["id"]) == ("add", tool_call["id"])
    assert scored["scores"]["perplexity"] == pytest.approx(1 / 0.9)
    assert set(scored["fields"]) == {"a", "b"}
    assert metadata_of(message)["answer"]["tokens"] == [0, 11]


def test_several_calls_have_scores_of_their_own():
    chat = scripted(call("add", a=1, b=2) + "\n" + call("add", a=30, b=4)).bind_tools([add])
    message = chat.invoke("?")
    assert [one["args"]["a"] for one in message.tool_calls] == [1, 30]
    first, second = metadata_of(message)["tool_calls"]
    assert first["tokens"][1] <= second["tokens"][0]
    streamed = whole(chat.stream("?"))
    assert [one["args"] for one in streamed.tool_calls] == [
        one["args"] for one in message.tool_calls
    ]
    assert [one["index"] for one in streamed.tool_call_chunks] == [0, 1]


def test_the_tools_are_part_of_the_request():
    chat = scripted("Hi.")
    chat.bind_tools([add, {"title": "odd", "description": "x", "properties": {}}]).invoke("?")
    (request,) = chat.backend.requests
    names = [one["function"]["name"] for one in request.conversation.tools]
    assert names == ["add", "odd"]


def test_without_tools_nothing_is_taken_for_a_call():
    said = call("add", a=1, b=2)
    assert scripted(said).invoke("?").content == said
    refusing = scripted(said).bind_tools([add], tool_choice="none").invoke("?")
    assert (refusing.content, refusing.tool_calls) == (said, [])


def test_a_conversation_goes_on_from_a_call_and_its_result():
    chat = scripted("3")
    calling = AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "x"}])
    result = ToolMessage("3", tool_call_id="x", status="error")
    chat.invoke([HumanMessage("1+2?"), calling, result])
    (request,) = chat.backend.requests
    _, tool_call, answered = request.conversation.messages
    assert json.loads(tool_call["tool_calls"][0]["function"]["arguments"]) == {"a": 1, "b": 2}
    assert (answered["role"], answered["tool_call_id"]) == ("tool", "x")


def test_a_tool_that_is_not_bound_cannot_be_chosen():
    with pytest.raises(errors.InvalidRequestError, match="allowed are auto, none, required, add"):
        scripted("?").bind_tools([add], tool_choice="subtract").invoke("?")


class Person(BaseModel):
    """A person."""

    name: str = Field(description="the full name")
    age: int


class PersonV1(BaseModelV1):
    """A person."""

    name: str
    age: int


class PersonDict(TypedDict):
    """A person."""

    name: Annotated[str, ..., "the full name"]
    age: int


ANN = '{"name": "Ann", "age": 7}'


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (Person, Person(name="Ann", age=7)),
        (PersonV1, PersonV1(name="Ann", age=7)),
        (PersonDict, {"name": "Ann", "age": 7}),
        (Person.model_json_schema(), {"name": "Ann", "age": 7}),
    ],
)
@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_an_answer_by_any_schema_and_any_method(schema, expected, method):
    name = getattr(schema, "__name__", "Person")
    said = call(name, name="Ann", age=7) if method == "function_calling" else ANN
    chat = scripted(said).with_structured_output(schema, method=method)
    assert chat.invoke("Who?") == expected
    assert list(chat.stream("Who?"))[-1] == expected


def test_each_field_has_a_score():
    chat = scripted('{"name": "Ann", "home": {"city": "Oslo"}, "age": 7}')
    schema = {"title": "person", "type": "object", "properties": {}}
    answer = chat.with_structured_output(schema, include_raw=True).invoke("Who?")
    assert answer["parsed"]["home"] == {"city": "Oslo"}
    fields = metadata_of(answer["raw"])["fields"]
    assert set(fields) == {"name", "home.city", "age"}
    assert fields["name"]["maxprob"] == pytest.approx(-3 * math.log(0.9))
    assert fields["age"]["maxprob"] == pytest.approx(-math.log(0.9))


def test_an_answer_that_does_not_fit_is_kept_with_the_error():
    chat = scripted('{"name": "Ann"}').with_structured_output(Person, include_raw=True)
    answer = chat.invoke("Who?")
    assert answer["parsed"] is None and "age" in str(answer["parsing_error"])
    assert metadata_of(answer["raw"])["fields"].keys() == {"name"}


def test_the_schema_is_the_engines_grammar():
    chat = scripted(ANN)
    chat.with_structured_output(Person).invoke("Who?")
    chat.with_structured_output(Person, method="json_mode").invoke("Who?")
    by_schema, by_mode = (one.sampling["structured_outputs"] for one in chat.backend.requests)
    assert set(by_schema["json"]["properties"]) == {"name", "age"}
    assert by_mode == {"json_object": True}


def test_openais_response_format_is_understood():
    chat = scripted(ANN)
    form = {"type": "json_schema", "json_schema": {"name": "p", "schema": {"type": "object"}}}
    chat.invoke("Who?", response_format=form)
    assert chat.backend.requests[0].sampling["structured_outputs"] == {"json": {"type": "object"}}


@pytest.mark.parametrize("verb", ["invoke", "stream"])
def test_with_a_schema_and_tools_the_model_calls_or_answers_by_the_schema(verb):
    chat = scripted(ANN, call("add", a=1, b=2))
    bound = chat.bind_tools([add], response_format={"type": "json_object"})
    said, called = (
        bound.invoke("Who?") if verb == "invoke" else whole(bound.stream("Who?")) for _ in range(2)
    )
    assert (said.content, said.tool_calls) == (ANN, [])
    assert [one["name"] for one in called.tool_calls] == ["add"]


@pytest.mark.parametrize("verb", ["invoke", "stream"])
@pytest.mark.parametrize("place", ["bound", "at the call"])
def test_calls_that_may_not_be_parallel_are_one(verb, place):
    chat, more = scripted(call("add", a=1, b=2) * 2), {"parallel_tool_calls": False}
    bound = chat.bind_tools([add], **(more if place == "bound" else {}))
    options = {} if place == "bound" else more
    message = (
        bound.invoke("?", **options) if verb == "invoke" else whole(bound.stream("?", **options))
    )
    assert [one["args"] for one in message.tool_calls] == [{"a": 1, "b": 2}]
    assert not message.invalid_tool_calls


@pytest.mark.parametrize("verb", ["invoke", "stream"])
def test_the_model_goes_on_with_a_begun_answer(verb):
    chat = scripted(" Oslo.").bind(continue_final_message=True)
    begun = [HumanMessage("Where?"), AIMessage("In")]
    message = chat.invoke(begun) if verb == "invoke" else whole(chat.stream(begun))
    assert message.content == " Oslo."
    with pytest.raises(errors.InvalidRequestError, match="continue_final_message"):
        chat.invoke("Where?")


def test_an_unknown_method_is_refused():
    with pytest.raises(errors.ConfigurationError, match="allowed are json_schema"):
        scripted().with_structured_output(Person, method="xml")


DOUBTED = {"uncertain_when": "mean_nll > 0", "on_high_uncertainty": "abstain"}


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
async def test_an_abstention_is_no_object(method):
    said = call("Person", name="Ann") if method == "function_calling" else '{"name": "Ann"}'
    chat = scripted(said, **DOUBTED).with_structured_output(Person, method=method)
    with pytest.raises(errors.HighUncertaintyError):
        chat.invoke("Who?")
    with pytest.raises(errors.HighUncertaintyError):
        await chat.ainvoke("Who?")
    with pytest.raises(errors.HighUncertaintyError):
        list(chat.stream("Who?"))


def test_an_abstention_is_the_reason_why_there_is_no_object():
    chat = scripted('{"name": "Ann"}', **DOUBTED).with_structured_output(Person, include_raw=True)
    answer = chat.invoke("Who?")
    assert isinstance(answer["parsing_error"], errors.HighUncertaintyError)
    assert answer["parsed"] is None


def test_an_object_is_streamed_as_it_grows():
    schema = Person.model_json_schema()
    chat = scripted('{"name": "Ann"}').with_structured_output(schema)
    assert {"name": "A"} in list(chat.stream("Who?"))
