"""Clients that know nothing of this package find the same entropies, each in its own place."""

import pytest

pytestmark = pytest.mark.engine

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
OPTIONS = {"model": "smollm2", "temperature": 0}
PLACE = {"api_key": "none", **OPTIONS}


@pytest.fixture(scope="module")
def expected(exact_server) -> list[float]:
    """What the server itself says."""
    body = {"messages": QUESTION, "temperature": 0, "max_tokens": 20}
    return exact_server.post("chat/completions", **body)["choices"][0]["uncertainty"]["entropy"]


def entropies(chunks) -> list[float]:
    """Those of all chunks of a stream, as the official client has them."""
    choices = [one for chunk in chunks for one in chunk.choices]
    found = [one.uncertainty for one in choices if getattr(one, "uncertainty", None)]
    return [entropy for one in found for entropy in one["entropy"]]


@pytest.fixture
def client(exact_server):
    import openai

    with openai.OpenAI(base_url=f"{exact_server.url}/v1", api_key="none") as client:
        yield client


def test_openai_has_them_beside_the_message(client, expected):
    (choice,) = client.chat.completions.create(messages=QUESTION, max_tokens=20, **OPTIONS).choices
    assert choice.uncertainty["exact"] is True
    assert choice.uncertainty["entropy"] == pytest.approx(expected, abs=1e-5)


def test_openai_has_them_in_the_chunks_of_a_stream(client, expected):
    chunks = client.chat.completions.create(
        messages=QUESTION, max_tokens=20, stream=True, **OPTIONS
    )
    assert entropies(chunks) == pytest.approx(expected, abs=1e-5)


def test_openai_asks_for_nothing(client):
    answer = client.chat.completions.create(
        messages=QUESTION, max_tokens=2, extra_body={"uncertainty": False}, **OPTIONS
    )
    assert not hasattr(answer.choices[0], "uncertainty")


@pytest.fixture
def chat_openai(exact_server):
    from langchain_openai import ChatOpenAI

    place = {"base_url": f"{exact_server.url}/v1", "max_completion_tokens": 20, **PLACE}
    return ChatOpenAI(logprobs=True, **place)


def test_chat_openai_has_them_in_the_logprobs(chat_openai, expected):
    message = chat_openai.invoke("What is the capital of France?")
    tokens = message.response_metadata["logprobs"]["content"]
    assert [one["entropy"] for one in tokens] == pytest.approx(expected, abs=1e-5)


def test_chat_openai_has_them_in_the_sum_of_a_stream(chat_openai, expected):
    first, *chunks = chat_openai.stream("What is the capital of France?")
    tokens = sum(chunks, first).response_metadata["logprobs"]["content"]
    assert [one["entropy"] for one in tokens] == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def open_ai_like(exact_server):
    from llama_index.llms.openai_like import OpenAILike

    place = {"api_base": f"{exact_server.url}/v1", "max_tokens": 20, **PLACE}
    return OpenAILike(is_chat_model=True, **place)


@pytest.fixture
def messages():
    from llama_index.core.llms import ChatMessage

    return [ChatMessage(content="What is the capital of France?")]


def test_open_ai_like_has_them_in_raw(open_ai_like, messages, expected):
    (choice,) = open_ai_like.chat(messages).raw.choices
    assert choice.uncertainty["entropy"] == pytest.approx(expected, abs=1e-5)


def test_open_ai_like_has_them_in_the_chunks_of_a_stream(open_ai_like, messages, expected):
    chunks = (response.raw for response in open_ai_like.stream_chat(messages))
    assert entropies(chunks) == pytest.approx(expected, abs=1e-5)
