"""LangChain's classes on servers: the same calls, and an address in the place of an engine."""

import sys

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler

from uq_llm_integrations import (
    BestOfN,
    ChatVLLMUncertainty,
    ConfigurationError,
    EngineClosedError,
    MissingDependencyError,
    VLLMUncertaintyLLM,
)
from uq_llm_integrations.testing import ScriptedServer

pytestmark = pytest.mark.loopback


@pytest.fixture
def server():
    server = ScriptedServer(["Paris", "Oslo"], api_key="key")
    yield server
    server.close()


@pytest.fixture
def chat(server):
    with ChatVLLMUncertainty(base_url=server.url, api_key="key") as chat:
        yield chat


def test_a_message_comes_with_exact_scores(chat):
    message = chat.invoke("Capital of France?")
    found = message.response_metadata["uncertainty"]
    assert message.content == "Paris" and found["exact"]
    assert found["scores"]["entropy"] > 0 and found["scores"]["perplexity"] > 1
    assert message.response_metadata["model_name"] == "scripted"


def test_a_stream_adds_up_to_the_message(chat):
    whole = None
    for chunk in chat.stream("Capital of France?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.content == "Paris"
    assert whole.response_metadata["uncertainty"]["scores"]["entropy"] > 0


async def test_many_are_answered_at_once(chat):
    found = await chat.abatch(["Capital?"] * 8)
    assert {one.content for one in found} <= {"Paris", "Oslo"}


def test_a_strategy_samples_on_the_servers(server):
    second = ScriptedServer(["Paris", "Oslo"], api_key="key")
    urls = [server.url, second.url + "/v1"]
    with VLLMUncertaintyLLM(
        base_url=urls, model="scripted", api_key="key", strategy=BestOfN(2)
    ) as llm:
        text, found = llm.invoke_with_scores("Capital of France?")
    second.close()
    assert text in ("Paris", "Oslo") and found["decision"] == "accepted"
    assert found["usage"]["generated_tokens"] > len(text)


def test_another_name_than_the_server_has_is_refused(server):
    chat = ChatVLLMUncertainty(base_url=server.url, model="org/other", api_key="key")
    with chat, pytest.raises(ConfigurationError, match=r"org/other.*scripted"):
        chat.invoke("?")


def test_a_wrong_key_is_refused_without_being_shown(server):
    with (
        ChatVLLMUncertainty(base_url=server.url, api_key="wr0ng") as chat,
        pytest.raises(ConfigurationError, match="api_key") as raised,
    ):
        chat.invoke("?")
    assert "wr0ng" not in str(raised.value)


def test_a_cache_answers_in_the_place_of_the_server(server):
    key = {"base_url": server.url, "api_key": "key", "cache": InMemoryCache()}
    with ChatVLLMUncertainty(**key) as one, ChatVLLMUncertainty(**key) as same:
        first = one.invoke("Capital of France?")
        again = same.invoke("Capital of France?")
        assert again.content == first.content
        assert (
            again.response_metadata["uncertainty"]["scores"]
            == (first.response_metadata["uncertainty"]["scores"])
        )
        assert one._get_llm_string() == same._get_llm_string()
    assert one._get_llm_string() != one.model_copy(update={"n": 2})._get_llm_string()


def test_handlers_hear_of_the_call_and_not_of_the_key(chat):
    seen = []

    class Handler(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, serialized, messages, **kwargs):
            seen.append(repr((serialized, kwargs)))

        def on_llm_end(self, response, **kwargs):
            message = response.generations[0][0].message
            seen.append(message.response_metadata["uncertainty"]["decision"])

    chat.invoke("Capital of France?", config={"callbacks": [Handler()]})
    assert seen[1] == "accepted" and "'key'" not in seen[0]
    params = chat._get_ls_params()
    assert (params["ls_provider"], params["ls_model_name"]) == ("vllm", "scripted")


def test_without_httpx_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    chat = ChatVLLMUncertainty(base_url="http://localhost:1")
    with chat, pytest.raises(MissingDependencyError, match=r"integrations\[server\]"):
        chat.invoke("?")


def test_a_closed_one_asks_no_more(server):
    chat = ChatVLLMUncertainty(base_url=server.url, api_key="key")
    chat.close()
    with pytest.raises(EngineClosedError):
        chat.invoke("?")
