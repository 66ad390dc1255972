"""Messages to a turn, and replies to LlamaIndex's responses, without any model."""

import json

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)

from uq_llm_integrations import errors
from uq_llm_integrations.chat.reply import Reply, ToolCall
from uq_llm_integrations.llama_index.messages import (
    chat_message,
    log_probs,
    openai_message,
    selections,
    turn_of,
)

CALL = ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"a": 1})
TOOL = {"type": "function", "function": {"name": "add"}}


def test_a_message_becomes_what_openai_would_call_it():
    message = ChatMessage(
        role=MessageRole.ASSISTANT,
        blocks=[ThinkingBlock(content="hm"), TextBlock(text="I add."), CALL],
    )
    function = {"name": "add", "arguments": '{"a": 1}'}
    assert openai_message(message) == {
        "role": "assistant",
        "content": "I add.",
        "reasoning_content": "hm",
        "tool_calls": [{"id": "1", "type": "function", "function": function}],
    }


def test_what_is_beside_a_messages_content_stays_out():
    kwargs = {"tool_call_id": "1", "uncertainty": {"scores": {}}}
    result = ChatMessage(role=MessageRole.TOOL, content="3", additional_kwargs=kwargs)
    assert openai_message(result) == {"role": "tool", "content": "3", "tool_call_id": "1"}


@pytest.mark.parametrize(
    ("role", "meant"),
    [
        (MessageRole.DEVELOPER, "system"),
        (MessageRole.CHATBOT, "assistant"),
        (MessageRole.MODEL, "assistant"),
        (MessageRole.FUNCTION, "tool"),
    ],
)
def test_roles_that_chat_templates_do_not_know_are_those_that_they_know(role, meant):
    assert openai_message(ChatMessage(role=role, content="x"))["role"] == meant


def test_what_is_only_for_other_models_is_left_out():
    point = CachePoint(cache_control=CacheControl(type="ephemeral"))
    cited = {"source": "b", "title": "Book", "additional_location_info": {}}
    citation = CitationBlock(cited_content=TextBlock(text="quoted"), **cited)
    message = ChatMessage(blocks=[TextBlock(text="x"), point, citation])
    assert openai_message(message) == {"role": "user", "content": "x"}


def test_texts_that_may_be_cited_are_read():
    block = CitableBlock(
        title="Book", source="b", content=[TextBlock(text="a"), TextBlock(text="b")]
    )
    assert openai_message(ChatMessage(blocks=[block]))["content"] == "a\nb"


@pytest.mark.parametrize(
    ("kind", "block"),
    [
        ("image", ImageBlock(url="http://x/y.png")),
        ("audio", AudioBlock(url="http://x/y.mp3")),
        ("video", VideoBlock(url="http://x/y.mp4")),
        ("document", DocumentBlock(url="http://x/y.pdf")),
        ("image", CitableBlock(title="x", source="x", content=[ImageBlock(url="http://x/y.png")])),
    ],
)
def test_pictures_sound_and_documents_are_refused(kind, block):
    with pytest.raises(
        errors.InvalidRequestError, match=f"'{kind}' is not served: this model reads"
    ):
        openai_message(ChatMessage(blocks=[TextBlock(text="x"), block]))


def test_calls_that_older_models_kept_beside_the_content_are_read():
    function = {"name": "add", "arguments": "{}"}
    call = {"id": "1", "type": "function", "function": function}
    kwargs = {"tool_calls": [call], "uncertainty": {}}
    message = ChatMessage(role=MessageRole.ASSISTANT, content="", additional_kwargs=kwargs)
    assert openai_message(message) == {"role": "assistant", "content": "", "tool_calls": [call]}


def test_arguments_that_are_not_ascii_are_readable():
    block = ToolCallBlock(tool_call_id="1", tool_name="add", tool_kwargs={"größe": "大"})
    (call,) = openai_message(ChatMessage(blocks=[block]))["tool_calls"]
    assert call["function"]["arguments"] == '{"größe": "大"}'


def test_tools_need_a_chat_template():
    turn = turn_of([ChatMessage("?")], {"tools": [TOOL], "stop": "x"})
    assert (turn.conversation.tools, turn.stop) == ((TOOL,), ("x",))
    with pytest.raises(errors.InvalidRequestError, match="chat_template=True"):
        turn_of([ChatMessage("?")], {"tools": [TOOL]}, written="user: ?")


def test_a_reply_becomes_blocks_in_the_order_in_which_it_was_said():
    call = ToolCall("add", '{"a": 1}', "1")
    message = chat_message(Reply("I add.", "hm", (call,)))
    assert message.blocks == [ThinkingBlock(content="hm"), TextBlock(text="I add."), CALL]
    assert message.content == "I add."
    assert chat_message(Reply("", None, (call,))).blocks == [CALL]
    assert chat_message(Reply("")).blocks == [TextBlock(text="")]


def test_calls_are_also_where_llama_indexs_programs_look():
    message = chat_message(Reply("", None, (ToolCall("add", '{"a": 1}', "1"),)))
    (tool_call,) = message.additional_kwargs["tool_calls"]
    assert json.loads(tool_call["function"]["arguments"]) == {"a": 1}
    assert chat_message(Reply("Hi.")).additional_kwargs == {}


def test_what_a_turn_says_of_its_calls_and_of_its_end():
    turn = turn_of([ChatMessage("?")], {"allow_parallel_tool_calls": False})
    assert not turn.parallel_tool_calls and not turn.conversation.continues
    begun = [ChatMessage("?"), ChatMessage("It is", role=MessageRole.ASSISTANT)]
    turn = turn_of(begun, {"continue_final_message": True})
    assert turn.parallel_tool_calls and turn.conversation.continues
    with pytest.raises(errors.InvalidRequestError, match="chat_template=True"):
        turn_of(begun, {"continue_final_message": True}, written="user: ?")


@pytest.mark.parametrize("arguments", ["{", "[1]"])
def test_arguments_that_are_no_object_are_kept_as_they_are_and_never_selected(arguments):
    message = chat_message(Reply("", None, (ToolCall("add", arguments, "1"),)))
    assert message.blocks[0].tool_kwargs == arguments
    with pytest.raises(errors.InvalidAnswerError):
        selections(message)


def test_the_token_itself_comes_first_and_a_token_without_alternatives_keeps_its_place():
    entry = {"token": "b", "logprob": -1.0, "bytes": [98]}
    other = {"token": "a", "logprob": -0.5, "bytes": [97]}
    first, second = log_probs([entry | {"top_logprobs": [other]}, other | {"top_logprobs": []}])
    assert [one.token for one in first] == ["b", "a"]
    assert [one.token for one in second] == ["a"]
    assert log_probs(None) is None
