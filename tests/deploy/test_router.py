"""vLLM's own router before two servers: the client uses the two routes that every router has."""

import pytest

from tests.deploy.router_program import vllm_router
from uq_llm_integrations import ChatVLLMUncertainty, UncertaintyModel, VLLMServerBackend
from uq_llm_integrations.testing import ScriptedServer

pytestmark = pytest.mark.subprocess

PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def servers():
    found = [ScriptedServer([PARIS], api_key="sk-1", only_completions=True) for _ in range(2)]
    yield found
    for one in found:
        one.close()


@pytest.fixture(scope="module")
def router(servers, tmp_path_factory):
    urls = [one.url for one in servers]
    with vllm_router(tmp_path_factory.mktemp("router"), urls) as url:
        yield url


@pytest.fixture
def backend(router):
    with VLLMServerBackend(
        router, model="scripted", routes="completions", api_key="sk-1"
    ) as backend:
        yield backend


def test_an_answer_comes_through_with_exact_statistics(backend):
    result = UncertaintyModel(backend, methods=["entropy"]).generate("Capital of France?")
    assert result.text == PARIS and result.trace.is_exact
    assert result.score("entropy").is_known


def test_so_does_each_piece_of_a_stream(backend):
    chat = ChatVLLMUncertainty(backend=backend, methods=["entropy"])
    chunks = list(chat.stream("Capital of France?"))
    whole = sum(chunks[1:], chunks[0])
    assert len(chunks) > 2 and whole.content == PARIS
    assert whole.response_metadata["uncertainty"]["scores"]["entropy"] > 0


def test_prompts_that_begin_alike_go_to_one_server(backend, servers):
    before = [one.generations for one in servers]
    for question in ("France", "Italy", "Spain"):
        UncertaintyModel(backend).generate(f"What is the capital of the country of {question}?")
    assert 0 in [one.generations - had for one, had in zip(servers, before, strict=True)]
