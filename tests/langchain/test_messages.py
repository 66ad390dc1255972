"""LangChain's messages as a turn of the model: nothing is lost, nothing is added."""

import json

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

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


def made(arguments: str = '{"ä": 1}') -> dict:
    return {"id": "1", "type": "function", "function": {"name": "add", "arguments": arguments}}


CALLED = [{"id": "1", "name": "add", "args": {"ä": 1}, "type": "tool_call"}]

FOREIGN = {
    "OpenAI's responses": AIMessage(
        [
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "text", "text": "I add.", "annotations": []},
            {"type": "function_call", "id": "f", "call_id": "1", "name": "add", "arguments": "{}"},
            {"type": "web_search_call", "id": "w", "status": "completed"},
        ],
        tool_calls=CALLED,
        response_metadata={"model_provider": "openai"},
    ),
    "Anthropic": AIMessage(
        [
            {"type": "thinking", "thinking": "hm", "signature": "x"},
            {"type": "text", "text": "I "},
            {"type": "text", "text": "add.", "citations": [{"type": "char_location"}]},
            {"type": "tool_use", "id": "1", "name": "add", "input": {"ä": 1}},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        ],
        tool_calls=CALLED,
        response_metadata={"model_provider": "anthropic"},
    ),
    "Google": AIMessage(
        [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "I add."}],
        tool_calls=CALLED,
        response_metadata={"model_provider": "google_genai"},
    ),
    "LangChain's standard": AIMessage(
        content_blocks=[
            {"type": "reasoning", "reasoning": "hm"},
            {"type": "text", "text": "I add."},
            *CALLED,
            {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {}},
            {"type": "non_standard", "value": {"x": 1}},
        ]
    ),
}


@pytest.mark.parametrize("provider", FOREIGN)
def test_what_another_model_said_is_rendered(provider):
    (message,) = plain(FOREIGN[provider])
    assert message == {
        "role": "assistant",
        "content": "I add.",
        "reasoning_content": "hm",
        "tool_calls": [made()],
    }


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            AIMessage("", additional_kwargs={"function_call": {"name": "add", "arguments": "{}"}}),
            {"role": "assistant", "content": "", "tool_calls": [made("{}") | {"id": ""}]},
        ),
        (
            AIMessage("", additional_kwargs={"refusal": "No."}),
            {"role": "assistant", "content": "No.", "refusal": "No."},
        ),
        (
            AIMessage([{"type": "refusal", "refusal": "No."}]),
            {"role": "assistant", "content": "No."},
        ),
        (
            ToolMessage(
                [{"type": "text", "text": "3"}, {"type": "json", "json": "ä"}], tool_call_id="1"
            ),
            {"role": "tool", "content": '3\n"ä"', "tool_call_id": "1"},
        ),
        (FunctionMessage("3", name="add"), {"role": "tool", "content": "3", "name": "add"}),
        (ChatMessage("Boo.", role="critic"), {"role": "critic", "content": "Boo."}),
        (SystemMessage(["Be", "brief."]), {"role": "system", "content": "Be\nbrief."}),
    ],
)
def test_messages_of_every_kind_are_rendered(message, expected):
    assert plain(message) == (expected,)


def test_results_within_a_users_message_are_handed_on():
    blocks = [{"type": "tool_result", "tool_use_id": "1", "content": "3"}, "And 4?"]
    result, question = plain(HumanMessage(blocks))
    assert (result["role"], result["content"], result["tool_call_id"]) == ("tool", "3", "1")
    assert question == {"role": "user", "content": "And 4?"}


def test_what_is_no_message_of_a_conversation_is_left_out_or_refused():
    assert plain(RemoveMessage(id="1"), HumanMessage("?")) == ({"role": "user", "content": "?"},)
    with pytest.raises(errors.InvalidRequestError, match="no message of a conversation"):
        plain(BaseMessage("?", type="other"))


@pytest.mark.parametrize("kind", ["image", "audio", "video", "file"])
def test_pictures_sound_and_files_are_refused_by_their_type(kind):
    block = {"type": kind, "base64": "AAAA", "mime_type": f"{kind}/x"}
    with pytest.raises(
        errors.InvalidRequestError, match=f"'{kind}' is not served: this model reads"
    ):
        scripted().invoke([HumanMessage(["?", block])])
