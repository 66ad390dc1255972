"""LangChain's messages as a turn of the model: nothing is lost, nothing is added."""

import json

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from tests.langchain.scripted_chat import call, scripted, whole
from uq_llm_integrations import errors
from uq_llm_integrations.chat.parsers import TagReader
from uq_llm_integrations.chat.reply import Reply, ToolCall
from uq_llm_integrations.langchain.messages import schema_of, turn_of


def plain(*messages) -> tuple:
    return turn_of(messages, None).conversation.messages


def test_reasoning_is_handed_back_where_templates_look_for_it():
    said = {"role": "assistant", "content": "Paris.", "reasoning_content": "Hm."}
    blocks = [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "Paris."}]
    for message in (
        AIMessage("Paris.", additional_kwargs={"reasoning_content": "Hm."}),
        AIMessage(blocks),
    ):
        assert plain(message) == (said,)


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_an_answer_can_be_handed_back_in_any_output_version(version):
    said = "<think>Hm.</think>Let me see." + call("add", a=1)
    tool = {"title": "add", "description": "Add.", "properties": {"a": {"type": "integer"}}}
    chat = scripted(said, reasoning_parser="think", output_version=version).bind_tools([tool])
    for answer in (chat.invoke("?"), whole(chat.stream("?"))):
        result = ToolMessage("1", tool_call_id=answer.tool_calls[0]["id"])
        _, calling, answered = plain(HumanMessage("?"), answer, result)
        assert calling["content"] == "Let me see."
        assert calling["reasoning_content"] == "Hm."
        (made,) = calling["tool_calls"]
        assert json.loads(made["function"]["arguments"]) == {"a": 1}
        assert answered["tool_call_id"] == made["id"]


def test_scores_stay_out():
    (message,) = plain(scripted(token_scores=True).invoke("?"))
    assert message == {"role": "assistant", "content": "Paris."}


def test_pictures_are_refused():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(errors.InvalidRequestError, match="allowed is text"):
        scripted().invoke([HumanMessage([picture])])


def test_openais_ways_to_say_a_schema():
    assert schema_of({"type": "text"}) is None
    assert schema_of({"type": "json_object"}) == {}
    with pytest.raises(errors.InvalidRequestError, match="allowed are the types"):
        schema_of({"type": "json_schema"})


def test_a_call_whose_arguments_are_no_json_is_invalid(monkeypatch):
    """Other formats than Hermes hand on what the model wrote."""
    broken = Reply("", None, (ToolCall("add", '{"a": ', "1"),))
    monkeypatch.setattr(TagReader, "whole", lambda self, text, ids=(): broken)
    tool = {"title": "add", "description": "Add.", "properties": {}}
    message = scripted("x").bind_tools([tool]).invoke("?")
    assert message.tool_calls == []
    (invalid,) = message.invalid_tool_calls
    assert (invalid["name"], invalid["args"], invalid["id"]) == ("add", '{"a": ', "1")
