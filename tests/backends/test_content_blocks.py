"""What blocks of other frameworks and providers say: rendered or left out, never refused."""

import pytest

from uq_llm_integrations import InvalidRequestError, ScriptedBackend, UncertaintyModel
from uq_llm_integrations.backends.content_blocks import plain_messages


def said(*blocks, role: str = "assistant", **beside) -> tuple:
    return plain_messages([{"role": role, "content": list(blocks), **beside}])


def call(name: str, arguments: str, id: str = "1") -> dict:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


TEXTS = {
    "openai": {"type": "text", "text": "é"},
    "responses input": {"type": "input_text", "text": "é"},
    "responses output": {"type": "output_text", "text": "é", "annotations": [{"type": "citation"}]},
    "refusal": {"type": "refusal", "refusal": "é"},
    "plain text": {"type": "text-plain", "mime_type": "text/plain", "text": "é"},
    "encoded text": {"type": "text-plain", "base64": "w6k="},
    "a text file": {"type": "file", "source_type": "text", "text": "é"},
    "anthropic's document": {"type": "document", "source": {"type": "text", "data": "é"}},
    "documents of blocks": {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "text", "text": "é"}]},
    },
    "search": {"type": "search_result", "title": "x", "content": [{"type": "text", "text": "é"}]},
    "google": {"text": "é"},
    "guard": {"guardContent": {"text": {"text": "é", "qualifiers": []}}},
    "unknown": {"type": "of the future", "text": "é"},
    "non-standard": {"type": "non_standard", "value": {"type": "refusal", "refusal": "é"}},
    "a string": "é",
}

THOUGHTS = {
    "langchain": {"type": "reasoning", "reasoning": "hm"},
    "anthropic": {"type": "thinking", "thinking": "hm", "signature": "x"},
    "responses": {
        "type": "reasoning",
        "id": "1",
        "summary": [{"type": "summary_text", "text": "hm"}],
    },
    "open responses": {"type": "reasoning", "summary": [], "content": [{"text": "hm"}]},
    "bedrock": {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "x"}}},
    "langchain's bedrock": {"type": "reasoning_content", "reasoning_content": {"text": "hm"}},
    "google": {"text": "hm", "thought": True},
}

CALLS = {
    "langchain": {"type": "tool_call", "id": "1", "name": "add", "args": {"ä": 1}},
    "anthropic": {"type": "tool_use", "id": "1", "name": "add", "input": {"ä": 1}},
    "responses": {
        "type": "function_call",
        "id": "fc",
        "call_id": "1",
        "name": "add",
        "arguments": '{"ä": 1}',
    },
    "bedrock": {"toolUse": {"toolUseId": "1", "name": "add", "input": {"ä": 1}}},
    "google": {"functionCall": {"id": "1", "name": "add", "args": {"ä": 1}}},
}

RESULTS = {
    "anthropic": {"type": "tool_result", "tool_use_id": "1", "content": "ä"},
    "blocks": {
        "type": "tool_result",
        "tool_use_id": "1",
        "content": [{"type": "text", "text": "ä"}],
    },
    "responses": {"type": "function_call_output", "call_id": "1", "output": "ä"},
    "bedrock": {"toolResult": {"toolUseId": "1", "content": [{"text": "ä"}]}},
}

LEFT_OUT = [
    {"type": "citation", "cited_text": "x"},
    {"type": "redacted_thinking", "data": "x"},
    {"type": "input_json_delta", "partial_json": "{"},
    {"type": "tool_call_chunk", "id": "1", "name": "add", "args": "{", "index": 0},
    {"type": "invalid_tool_call", "id": "1", "name": "add", "args": "{", "error": "x"},
    {"type": "server_tool_call", "id": "1", "name": "web_search", "args": {}},
    {"type": "server_tool_call_chunk", "id": "1"},
    {"type": "server_tool_result", "tool_call_id": "1", "output": "x", "status": "success"},
    {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "1", "content": []},
    {"type": "web_search_call", "id": "1", "status": "completed"},
    {"type": "image_generation_call", "id": "1", "result": "AAAA"},
    {"type": "non_standard", "value": {"type": "thing"}},
    {"type": "non_standard", "value": 3},
    {"executableCode": {"code": "1"}},
    {"cachePoint": {"type": "default"}},
    {"type": "text"},
    {"type": "refusal"},
    {"type": "tool_use"},
    {},
]

MEDIA = [
    {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
    {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
    {"type": "input_image", "image_url": "http://x/y.png"},
    {"type": "audio", "base64": "AAAA"},
    {"type": "input_audio", "input_audio": {"data": "AAAA"}},
    {"type": "video", "url": "http://x/y.mp4"},
    {"type": "file", "file_id": "1"},
    {"type": "input_file", "file_id": "1"},
    {"type": "text-plain", "url": "http://x/y.txt"},
    {"type": "document", "source": {"type": "base64", "data": "AAAA"}},
    {"type": "media", "mime_type": "image/png", "data": "AAAA"},
    {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
    {"image": {"format": "png", "source": {"bytes": b"x"}}},
    {"type": "non_standard", "value": {"type": "input_image", "image_url": "http://x/y.png"}},
    {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image", "url": "http://x"}]},
]


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_said(name):
    assert said(TEXTS[name], "!") == ({"role": "assistant", "content": "é!"},)


@pytest.mark.parametrize("name", THOUGHTS)
def test_reasoning_stands_where_templates_look_for_it(name):
    expected = {"role": "assistant", "content": "x", "reasoning_content": "hm"}
    assert said(THOUGHTS[name], "x") == (expected,)


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_made_once(name):
    made = call("add", '{"ä": 1}')
    expected = ({"role": "assistant", "content": "", "tool_calls": [made]},)
    assert said(CALLS[name]) == said(CALLS[name], tool_calls=[made]) == expected


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_messages_of_their_own(name):
    result = {"role": "tool", "tool_call_id": "1", "content": "ä"}
    assert said(RESULTS[name], role="user") == (result,)
    asked = {"role": "user", "content": "?"}
    assert said(RESULTS[name], "?", role="user") == (result, asked)
    assert said(RESULTS[name], role="tool") == ({"role": "tool", "content": "ä"},)


@pytest.mark.parametrize("block", LEFT_OUT)
def test_what_says_nothing_to_this_model_is_left_out(block):
    assert said(block, "x") == ({"role": "assistant", "content": "x"},)


@pytest.mark.parametrize("block", MEDIA)
def test_pictures_sound_and_files_are_refused(block):
    with pytest.raises(InvalidRequestError, match=r"content of type '.+' is not served"):
        said(block)
    model = UncertaintyModel(ScriptedBackend(["x"]))
    with pytest.raises(InvalidRequestError, match="this model reads text"):
        model.chat([{"role": "user", "content": ["What is it?", block]}])


def test_a_refusal_beside_the_content_is_said():
    message = {"role": "assistant", "content": None, "refusal": "No."}
    assert plain_messages([message])[0]["content"] == "No."


def test_an_old_function_is_a_tool():
    (result,) = plain_messages([{"role": "function", "name": "add", "content": "3"}])
    assert (result["role"], result["content"]) == ("tool", "3")


@pytest.mark.parametrize("content", [3, [3], {1, 2}])
def test_content_that_is_none_is_refused(content):
    with pytest.raises(InvalidRequestError, match="allowed are"):
        plain_messages([{"role": "user", "content": content}])


def test_messages_that_are_plain_stay_as_they_are():
    messages = said(THOUGHTS["langchain"], CALLS["langchain"], "x")
    assert plain_messages(messages) == messages
