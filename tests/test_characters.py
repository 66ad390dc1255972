"""Characters of several tokens in both frameworks: the tokens' texts and bytes join to the content.

The end of the turn, which the content does not have, keeps its name.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from langchain_core.messages import BaseMessage
from llama_index.core.base.llms.types import ChatMessage

from tests.langchain.scripted_chat import whole
from uq_llm_integrations import Backend, ScriptedBackend, langchain, llama_index

CHARACTERS = "naïve 東京 🙂🙂 👩‍👩‍👧 🇫🇷 e\u0301"
END = "<|im_end|>"

Answer = tuple[str, list[tuple[str, list[int]]], list[str]]
"""The content, each token's text and bytes, and the texts of `by_token`."""


def of_langchain(message: BaseMessage) -> Answer:
    metadata = message.response_metadata
    entries = metadata["logprobs"]["content"]
    tokens = metadata["uncertainty"]["by_token"]["token"]
    return str(message.content), [(one["token"], one["bytes"]) for one in entries], tokens


def invoked(backend: Backend, **options: Any) -> Answer:
    chat = langchain.ChatVLLMUncertainty(backend=backend, token_scores=True, logprobs=True)
    return of_langchain(chat.invoke("?", **options))


def langchain_stream(backend: Backend, **options: Any) -> Answer:
    chat = langchain.ChatVLLMUncertainty(backend=backend, token_scores=True, logprobs=True)
    return of_langchain(whole(chat.stream("?", **options)))


def of_llama_index(responses: Iterable[Any], last: Any) -> Answer:
    responses = list(responses)
    rows = [row for one in responses for row in one.logprobs]
    tokens = [
        token
        for one in responses
        for token in one.additional_kwargs["uncertainty"]["by_token"]["token"]
    ]
    return last.message.content, [(row[0].token, row[0].bytes) for row in rows], tokens


def chatted(backend: Backend, **options: Any) -> Answer:
    llm = llama_index.VLLMUncertaintyLLM(backend=backend, token_scores=True, logprobs=True)
    response = llm.chat([ChatMessage("?")], **options)
    return of_llama_index([response], response)


def llama_index_stream(backend: Backend, **options: Any) -> Answer:
    """The last response has the whole answer's tokens, and all before those that they add."""
    llm = llama_index.VLLMUncertaintyLLM(backend=backend, token_scores=True, logprobs=True)
    *before, last = llm.stream_chat([ChatMessage("?")], **options)
    answer = of_llama_index([last], last)
    streamed = of_llama_index(before, last)
    assert answer[1][: len(streamed[1])] == streamed[1]
    assert answer[2][: len(streamed[2])] == streamed[2]
    return answer


ways = pytest.mark.parametrize("way", [invoked, langchain_stream, chatted, llama_index_stream])


def check(answer: Answer, content: str) -> None:
    said, entries, tokens = answer
    assert said == content
    joined = "".join(text for text, _ in entries)
    assert joined.removesuffix(END) == content
    assert bytes(one for _, part in entries for one in part) == joined.encode()
    assert tokens == [text for text, _ in entries]


@ways
def test_texts_and_bytes_join_to_the_content(way: Callable[..., Answer]):
    check(way(ScriptedBackend([CHARACTERS])), CHARACTERS)
    check(way(ScriptedBackend(["a🙂"]), max_tokens=3), "a")


@ways
@pytest.mark.engine
def test_texts_and_bytes_join_to_the_content_of_the_engine(way, backend):
    grammar = {"structured_outputs": {"choice": [CHARACTERS]}, "max_tokens": 99}
    check(way(backend, top_logprobs=2, **grammar), CHARACTERS)


@pytest.mark.engine
def test_alternatives_within_a_character_have_no_broken_bytes(backend):
    """A token that only begins a character adds no text yet, whether it was sampled or not."""
    chat = langchain.ChatVLLMUncertainty(backend=backend, top_logprobs=5, temperature=1.0, seed=1)
    grammar = {"structured_outputs": {"regex": "(🙂|🙁|東|京){4}"}, "max_tokens": 40}
    entries = chat.invoke("?", **grammar).response_metadata["logprobs"]["content"]
    assert any(not one["token"] for one in entries)
    for entry in entries:
        same = [one for one in entry["top_logprobs"] if one["logprob"] == entry["logprob"]]
        assert not same or entry["token"] in [one["token"] for one in same]
        for one in (entry, *entry["top_logprobs"]):
            assert one["bytes"] == list(one["token"].encode())
            assert "\ufffd" not in one["token"]


@pytest.mark.engine
def test_a_schema_that_is_not_ascii_gives_readable_objects(backend):
    size = {"enum": ["groß", "大きい"]}
    schema = {
        "title": "maß",
        "type": "object",
        "properties": {"größe": size},
        "required": ["größe"],
    }
    chat = langchain.ChatVLLMUncertainty(backend=backend, temperature=0, max_tokens=60)
    answer = chat.with_structured_output(schema, include_raw=True).invoke("How big is it?")
    assert answer["parsed"]["größe"] in size["enum"]
    assert "größe" in answer["raw"].content
