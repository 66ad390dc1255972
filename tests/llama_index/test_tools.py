"""Tools, on a backend that answers from a script.

The scripted backend knows no grammar, so what a grammar would force is scripted.
"""

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.program import FunctionCallingProgram
from pydantic import BaseModel

from tests.llama_index.scripted import ADD, LOGPROB, call, question, scripted
from uq_llm_integrations import errors

CALL = call("add", a=1, b=2)


async def answered(llm, verb: str, **arguments):
    """The response of one of the four ways to chat with tools, the last one of a stream."""
    answer = getattr(llm, f"{verb}_with_tools")([ADD], "1 + 2?", **arguments)
    answer = await answer if verb.startswith("a") else answer
    if "stream" not in verb:
        return answer
    return [part async for part in answer][-1] if verb.startswith("a") else list(answer)[-1]


@pytest.mark.parametrize("verb", ["chat", "achat", "stream_chat", "astream_chat"])
async def test_a_call_is_read_and_scored_with_each_of_its_arguments(verb):
    llm = scripted([f"Let me see. {CALL}"])
    response = await answered(llm, verb)
    assert response.message.content.strip() == "Let me see."
    (selection,) = llm.get_tool_calls_from_response(response)
    assert (selection.tool_name, selection.tool_kwargs) == ("add", {"a": 1, "b": 2})
    (scored,) = response.additional_kwargs["uncertainty"]["tool_calls"]
    assert (scored["name"], scored["id"]) == ("add", selection.tool_id)
    assert scored["fields"]["a"]["maxprob"] == pytest.approx(-LOGPROB)


@pytest.mark.parametrize("verb", ["chat", "stream_chat"])
async def test_one_call_is_kept_unless_more_are_allowed(verb):
    llm = scripted([CALL + CALL])
    one = await answered(llm, verb)
    assert len(llm.get_tool_calls_from_response(one)) == 1
    both = await answered(llm, verb, allow_parallel_tool_calls=True)
    assert len(llm.get_tool_calls_from_response(both)) == 2


def test_the_tools_are_part_of_the_request():
    llm = scripted(["Hi."])
    llm.chat_with_tools([ADD], "?", chat_history=question("Hello."))
    (request,) = llm.backend.requests
    assert [one["content"] for one in request.conversation.messages] == ["Hello.", "?"]
    assert [one["function"]["name"] for one in request.conversation.tools] == ["add"]


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ({}, "auto"),
        ({"tool_required": True}, "required"),
        ({"tool_required": True, "tool_choice": None}, "required"),
        ({"tool_required": True, "tool_choice": "add"}, "add"),
        ({"tool_choice": "none"}, "none"),
    ],
)
def test_a_tool_can_be_required(given, choice):
    # LlamaIndex's own name for what each class has to define.
    assert scripted()._prepare_chat_with_tools([ADD], "?", **given)["tool_choice"] == choice


def test_a_tool_that_does_not_exist_cannot_be_chosen():
    with pytest.raises(errors.InvalidRequestError, match="tool_choice is 'subtract'"):
        scripted().chat_with_tools([ADD], "?", tool_choice="subtract")


def test_no_call_is_an_error_where_one_was_wanted():
    llm = scripted()
    response = llm.chat_with_tools([ADD], "?")
    with pytest.raises(ValueError, match="called no tool"):
        llm.get_tool_calls_from_response(response)
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []


async def test_a_tool_is_predicted_and_called():
    llm = scripted([CALL])
    assert llm.predict_and_call([ADD], "1 + 2?").response == "3"
    assert (await llm.apredict_and_call([ADD], "1 + 2?")).response == "3"


def test_a_conversation_goes_on_from_a_call_and_its_result():
    llm = scripted([CALL, "3"])
    calling = llm.chat_with_tools([ADD], "1 + 2?").message
    call_id = calling.blocks[0].tool_call_id
    kwargs = {"tool_call_id": call_id}
    result = ChatMessage(role=MessageRole.TOOL, content="3", additional_kwargs=kwargs)
    llm.chat_with_tools([ADD], chat_history=[*question("1 + 2?"), calling, result])
    _, said, answered = llm.backend.requests[-1].conversation.messages
    assert said["tool_calls"][0]["id"] == answered["tool_call_id"] == call_id


class Country(BaseModel):
    """A country."""

    name: str


async def test_llama_indexs_program_of_function_calls_works():
    llm = scripted([call("Country", name="Mali")])
    program = FunctionCallingProgram.from_defaults(Country, "Write about a country.", llm=llm)
    mali = Country(name="Mali")
    assert program() == mali
    assert await program.acall() == mali
    assert list(program.stream_call())[-1] == mali
    assert [one async for one in await program.astream_call()][-1] == mali
