"""Two real servers: behind vLLM's router, and of one client, of which one is killed in the end."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import eventually
from tests.deploy.router_program import vllm_router
from tests.vllm_server import vllm_server
from uq_llm_integrations import ChatVLLMUncertainty, EngineDeadError, Request, VLLMServerBackend
from uq_llm_integrations.backends.token_statistics import read_rows

pytestmark = pytest.mark.engine

CLOSE = {"rtol": 0, "atol": 1e-4}  # other batches round otherwise
PROMPTS = ["The capital of France is", "Water boils at", "Two and two are", "The sky is"]
CHAT = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
GREEDY = {"temperature": 0, "max_tokens": 8, "uncertainty": "rows"}


@pytest.fixture(scope="module")
def other_server(tmp_path_factory):
    """A second server of the same; the last test kills it."""
    with vllm_server(tmp_path_factory.mktemp("other"), plugins="uq_llm") as server:
        yield server


@pytest.fixture(scope="module")
def routed(exact_server, other_server, tmp_path_factory):
    """The router before both, to be asked as a server is."""
    urls = [exact_server.url, other_server.url]
    folder = tmp_path_factory.mktemp("router")
    with vllm_router(folder, urls, policy="round_robin") as url:
        yield replace(exact_server, url=url)


@pytest.fixture
def client(routed):
    with VLLMServerBackend(routed.url, model=routed.model, routes="completions") as backend:
        yield backend


def rows_of(statistics: dict) -> np.ndarray:
    assert statistics["exact"] is True and statistics["reason"] is None
    return read_rows(base64.b64decode(statistics["rows"]))


@pytest.mark.parametrize(
    ("route", "body"),
    [
        *(("completions", {"prompt": one}) for one in PROMPTS),
        ("completions", {"prompt": [504, 3575, 282, 4649, 314], "uncertainty_from": 2}),
        ("chat/completions", CHAT),
        ("chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2}),
    ],
)
def test_the_router_passes_exact_statistics_on(routed, exact_server, route, body):
    (expected,) = exact_server.post(route, **GREEDY, **body)["choices"]
    for _ in range(2):  # once from each server
        (found,) = routed.post(route, **GREEDY, **body)["choices"]
        for name in [one for one in expected if one.endswith("uncertainty")]:
            own, true = rows_of(found[name]), rows_of(expected[name])
            np.testing.assert_allclose(own, true, rtol=1e-6, atol=1e-6)
        assert found.get("text") == expected.get("text")
        assert found.get("message") == expected.get("message")


def test_both_servers_are_asked(routed, exact_server, other_server):
    servers = exact_server, other_server
    before = [one.log.read_bytes().count(b"POST /v1/completions") for one in servers]
    for prompt in PROMPTS:
        routed.post("completions", prompt=prompt, **GREEDY)
    now = [one.log.read_bytes().count(b"POST /v1/completions") for one in servers]
    assert all(new > old for new, old in zip(now, before, strict=True))


@pytest.mark.parametrize(
    ("route", "body"), [("completions", {"prompt": PROMPTS[0]}), ("chat/completions", CHAT)]
)
def test_a_stream_through_the_router_adds_up_to_the_answer(routed, exact_server, route, body):
    (expected,) = exact_server.post(route, **GREEDY, **body)["choices"]
    chunks = [json.loads(one) for one in routed.stream(route, **GREEDY, **body)]
    parts = [one["choices"][0]["uncertainty"] for one in chunks if has_statistics(one)]
    assert len(parts) > 1 and [one["first"] for one in parts] == starts(parts)
    found = np.concatenate([rows_of(one) for one in parts])
    np.testing.assert_allclose(found, rows_of(expected["uncertainty"]), rtol=1e-6, atol=1e-6)


def has_statistics(chunk: dict) -> bool:
    return bool(chunk["choices"] and chunk["choices"][0].get("uncertainty"))


def starts(parts: list[dict]) -> list[int]:
    counts = [len(one["entropy"]) for one in parts]
    return [sum(counts[:place]) for place in range(len(counts))]


def test_the_client_is_exact_through_the_router(client, exact_server):
    ids = client.run(client.encode(CHAT["messages"][0]["content"], chat=True))
    request = Request(ids, sampling={"temperature": 0.0, "max_tokens": 8})
    with VLLMServerBackend(exact_server.url) as direct:
        assert direct.run(direct.encode(CHAT["messages"][0]["content"], chat=True)) == ids
        (expected,) = direct.run(direct.generate(request))
    (found,) = client.run(client.generate(request))
    *_, last = client.iterate(client.stream(request))
    scored = client.run(client.score(ids, expected.token_ids))
    for one in (found, last.candidate, scored):
        assert one.token_ids == expected.token_ids and one.trace.is_exact
        np.testing.assert_allclose(one.trace.entropy, expected.trace.entropy, **CLOSE)


def test_so_is_a_chat_model(client):
    chat = ChatVLLMUncertainty(backend=client, temperature=0)
    chunks = list(chat.stream("What is the capital of France?"))
    whole = sum(chunks[1:], chunks[0])
    message = chat.invoke("What is the capital of France?")
    found = whole.response_metadata["uncertainty"], message.response_metadata["uncertainty"]
    assert whole.content == message.content and "Paris" in message.content
    assert found[0]["exact"] and found[1]["exact"]
    assert found[0]["scores"] == pytest.approx(found[1]["scores"], abs=1e-4)


# From here on there is but one server.

COUNT = 24


def prompt(number: int) -> tuple[int, ...]:
    return (504, 3575, 282, 4649, 1000 + number)


async def test_one_of_two_killed_under_load_loses_and_doubles_nothing(exact_server, other_server):
    def request(number: int, tokens: int) -> Request:
        sampling = {"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True}
        return Request(prompt(number), sampling=sampling)

    with VLLMServerBackend([exact_server.url, other_server.url]) as backend:
        begun: dict[int, list[int]] = {number: [] for number in range(COUNT)}

        async def streamed(number: int) -> bool:
            try:
                async for piece in backend.stream(request(number, 48)):
                    begun[number] += piece.token_ids
            except EngineDeadError as error:
                assert error.is_retryable
                return False
            return True

        async def whole(number: int) -> tuple[int, ...]:
            (found,) = await backend.generate(request(number, 16))
            assert found.trace.is_exact and len(found.trace) == 16
            return found.token_ids

        backend.drain(exact_server.url)  # so that all begin on the one that is killed
        calls = [asyncio.ensure_future(whole(number)) for number in range(COUNT)]
        streams = [asyncio.ensure_future(streamed(number)) for number in range(COUNT)]
        await eventually(lambda: sum(map(bool, begun.values())) >= COUNT // 2)
        backend.resume(exact_server.url)
        os.killpg(other_server.pid, signal.SIGKILL)
        answers, ends = await asyncio.gather(*calls), await asyncio.gather(*streams)

        async def expected(number: int) -> tuple[int, ...]:
            (found,) = await backend.generate(request(number, 48))
            return found.token_ids

        true = await asyncio.gather(*map(expected, range(COUNT)))
    assert list(answers) == [one[:16] for one in true]
    # A stream is whole, or it ends where it broke: nothing of the other server's comes after that.
    for number, is_whole in enumerate(ends):
        seen = tuple(begun[number])
        assert seen == true[number] if is_whole else seen and true[number][: len(seen)] == seen
    assert not all(ends)
