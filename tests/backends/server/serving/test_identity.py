"""Off means off: what a server answers that has the plugin, and is asked for nothing."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.engine

IDS = {"id", "created", "system_fingerprint"}

CHAT = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
BODIES = [
    ("completions", {"prompt": "The capital of France is"}),
    ("completions", {"prompt": ["A", "B"], "n": 2, "temperature": 1.0, "seed": 3}),
    ("completions", {"prompt": [1, 2, 3], "logprobs": 4, "echo": True}),
    ("completions", {"prompt": "The", "prompt_logprobs": 2, "return_token_ids": True}),
    ("completions", {"prompt": "Yes or", "structured_outputs": {"choice": ["no", "yes"]}}),
    ("completions", {"prompt": "The", "max_tokens": -1}),
    ("chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 5}),
    ("chat/completions", {**CHAT, "n": 2, "temperature": 0.8, "seed": 1}),
    ("chat/completions", {"messages": []}),
]
SIZES = {"temperature": 0, "max_tokens": 5}


def same(answer: object) -> object:
    """Return an answer without its ids and times."""
    if isinstance(answer, dict):
        return {name: same(one) for name, one in answer.items() if name not in IDS}
    return [same(one) for one in answer] if isinstance(answer, list) else answer


@pytest.mark.parametrize(("route", "body"), BODIES)
def test_the_answer_is_a_plain_servers(exact_server, plain_server, route, body):
    body = {**SIZES, **body}
    off = exact_server.respond(route, **body, uncertainty=False)
    plain = plain_server.respond(route, **body)
    assert off.status_code == plain.status_code
    assert same(off.json()) == same(plain.json())


@pytest.mark.parametrize(
    ("route", "body"), [BODIES[0], BODIES[2], BODIES[6]], ids=["plain", "echo", "chat"]
)
def test_a_stream_is_a_plain_servers(exact_server, plain_server, route, body):
    body = {**SIZES, **body, "stream_options": {"include_usage": True}}
    off = [same(json.loads(one)) for one in exact_server.stream(route, **body, uncertainty=False)]
    plain = [same(json.loads(one)) for one in plain_server.stream(route, **body)]
    assert off == plain


@pytest.mark.parametrize(("route", "body"), BODIES[:8])
def test_statistics_come_beside_what_a_plain_server_answers(
    exact_server, plain_server, route, body
):
    body = {**SIZES, **body}
    on, plain = exact_server.respond(route, **body), plain_server.respond(route, **body)
    assert same(without_statistics(on.json())) == same(plain.json())


def without_statistics(answer: object) -> object:
    if isinstance(answer, dict):
        ours = ("uncertainty", "prompt_uncertainty", "entropy")
        return {n: without_statistics(one) for n, one in answer.items() if n not in ours}
    return [without_statistics(one) for one in answer] if isinstance(answer, list) else answer


def test_a_server_that_is_off_has_no_route_of_the_plugin(plain_server):
    import httpx

    assert httpx.get(f"{plain_server.url}/v1/uq/capabilities").status_code == 404
    assert "uq_llm" not in httpx.get(f"{plain_server.url}/metrics").text
