"""LlamaIndex's class on servers: the same calls, and addresses in the place of an engine."""

import pytest
from llama_index.core.base.llms.types import ChatMessage

from uq_llm_integrations import ConfigurationError, VLLMServerBackend
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM
from uq_llm_integrations.testing import ScriptedServer

pytestmark = pytest.mark.loopback


@pytest.fixture
def servers():
    servers = [ScriptedServer(["Paris."], api_key="key") for _ in range(2)]
    yield servers
    for server in servers:
        server.close()


@pytest.fixture
def llm(servers):
    with VLLMUncertaintyLLM(base_url=[one.url for one in servers], api_key="key") as llm:
        yield llm


def test_answers_come_with_exact_scores(llm):
    response = llm.complete("Capital of France?")
    assert response.text == "Paris." and response.additional_kwargs["uncertainty"]["exact"]
    reply = llm.chat([ChatMessage(role="user", content="Capital of France?")])
    assert reply.additional_kwargs["uncertainty"]["scores"]["entropy"] > 0
    *_, last = llm.stream_complete("Capital of France?")
    assert last.text == "Paris." and last.additional_kwargs["uncertainty"]["exact"]


def test_the_metadata_are_those_of_the_servers(llm):
    assert llm.metadata.context_window == 4096
    assert llm.metadata.model_name == "scripted"


def test_what_is_written_reads_back_but_for_the_key(llm):
    data = llm.to_dict()
    assert "'key'" not in repr(data)
    assert VLLMUncertaintyLLM.from_dict(data, api_key="key") == llm


def test_a_backend_may_be_given_ready(servers):
    with VLLMServerBackend(servers[0].url, api_key="key") as backend:
        assert VLLMUncertaintyLLM(backend=backend).complete("?").text == "Paris."
        with pytest.raises(ConfigurationError, match="a ready backend takes no api_key"):
            VLLMUncertaintyLLM(backend=backend, api_key="key")
