"""The plugin's own routes, in vLLM's app but without its engine."""

from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.serve.middleware.authenticate import AuthenticationMiddleware

from tests.backends.tiny_tokenizers import byte_level
from uq_llm_integrations import Conversation
from uq_llm_integrations.backends.server.serving import routes
from uq_llm_integrations.backends.token_statistics import COLUMNS

TEMPLATE = (
    "{% for one in messages %}<|end|>{{ one.role }}: {{ one.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|end|>assistant: {% endif %}"
)
USER = [{"role": "user", "content": "a"}]
KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def tokenizer():
    made = PreTrainedTokenizerFast(tokenizer_object=byte_level(), eos_token="<|end|>")
    made.chat_template = TEMPLATE
    return made


@pytest.fixture
def app(tokenizer):
    app = FastAPI()
    app.include_router(routes.router())
    app.add_middleware(AuthenticationMiddleware, tokens=["secret"])
    config = SimpleNamespace(
        model_config=SimpleNamespace(
            served_model_name="tiny",
            max_model_len=64,
            max_logprobs=20,
            get_vocab_size=lambda: len(tokenizer),
        ),
        cache_config=SimpleNamespace(block_size=16),
    )
    client = SimpleNamespace(get_tokenizer=lambda: tokenizer, vllm_config=config)
    routes.prepare(app.state, client)
    return app


async def ask(app, method: str, route: str, headers=KEY, **options) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, f"/v1/uq/{route}", headers=headers, **options)


async def test_capabilities(app, tokenizer):
    found = (await ask(app, "GET", "capabilities")).json()
    assert found["version"] == 1 and found["model"] == "tiny"
    assert found["vocabulary_size"] == len(tokenizer)
    assert (found["context_length"], found["max_logprobs"], found["block_size"]) == (64, 20, 16)
    assert found["columns"] == list(COLUMNS)
    assert found["exact"] is True and found["inspect"] is False and found["has_chat_template"]


@pytest.mark.parametrize("body", [{"text": "the cat"}, {"text": "a <|end|>", "data": True}])
async def test_texts_are_encoded_as_by_the_embedded_backend(app, body):
    codec = app.state.uq_llm_codec
    method = codec.encode_data if body.get("data") else codec.encode
    expected = await method(body["text"])
    answer = (await ask(app, "POST", "encode", json=body)).json()
    assert answer == {"token_ids": list(expected)}


async def test_names_of_control_tokens_in_messages_are_text(app, tokenizer):
    messages = [{"role": "user", "content": "the <|end|> cat"}]
    ids = (await ask(app, "POST", "encode", json={"messages": messages})).json()["token_ids"]
    expected = await app.state.uq_llm_codec.encode_chat(Conversation(tuple(messages)))
    assert ids == list(expected) and ids.count(tokenizer.eos_token_id) == 2
    allowed = {"messages": messages, "allow_special_tokens": True}
    ids = (await ask(app, "POST", "encode", json=allowed)).json()["token_ids"]
    assert ids.count(tokenizer.eos_token_id) == 3


async def test_a_server_that_trusts_templates_takes_one(app):
    app.state.uq_llm_trusts_templates = True
    body = {"messages": USER, "chat_template_kwargs": {"chat_template": "the cat"}}
    ids = (await ask(app, "POST", "encode", json=body)).json()["token_ids"]
    assert ids == list(await app.state.uq_llm_codec.encode("the cat"))


async def test_tokens_are_decoded(app):
    ids = (await ask(app, "POST", "encode", json={"text": "the cat 東"})).json()["token_ids"]
    answer = (await ask(app, "POST", "decode", json={"token_ids": ids})).json()
    assert answer["text"] == "".join(answer["texts"]) == "the cat 東"
    assert len(answer["texts"]) == len(ids)


@pytest.mark.parametrize(
    ("route", "body", "message"),
    [
        ("encode", {}, "text"),
        ("encode", {"text": 3}, "text"),
        ("encode", {"text": "a", "unknown": 1}, "unknown"),
        ("encode", {"text": "a", "chat": True, "data": True}, "chat is true"),
        ("encode", {"messages": []}, "no messages"),
        ("encode", {"messages": "a"}, "messages"),
        (
            "encode",
            {"messages": USER, "chat_template_kwargs": {"chat_template": "{{ 1 }}"}},
            "--trust-request-chat-template",
        ),
        (
            "encode",
            {
                "messages": USER,
                "chat_template_kwargs": {"padding": "max_length", "max_length": 9**9},
            },
            "max_length, padding",
        ),
        ("decode", {"token_ids": [-1]}, "there is no token -1"),
        ("decode", {"token_ids": [10**9]}, "there is no token 1000000000"),
        ("decode", {"token_ids": "1"}, "token_ids"),
        ("decode", [1], "token_ids"),
    ],
)
async def test_what_is_refused(app, route, body, message):
    response = await ask(app, "POST", route, json=body)
    error = response.json()["error"]
    assert response.status_code == error["code"] == 400
    assert message in error["message"] and error["type"] == "BadRequestError"


@pytest.mark.parametrize(
    ("method", "route"), [("GET", "capabilities"), ("POST", "encode"), ("POST", "decode")]
)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}])
async def test_every_route_wants_the_servers_api_key(app, method, route, headers):
    assert (await ask(app, method, route, headers=headers)).status_code == 401
