"""A real server's statistics against the embedded engine's and against whole distributions."""

from __future__ import annotations

import asyncio
import base64
import json

import httpx
import numpy as np
import pytest

from uq_llm_integrations import Request
from uq_llm_integrations.backends.token_statistics import (
    column,
    dense_rows,
    exact_statistics,
    read_rows,
)

pytestmark = pytest.mark.engine

CLOSE = {"rtol": 0, "atol": 1e-6}
VOCABULARY = 49_152
WHOLE = {"logprobs": -1, "return_tokens_as_token_ids": True}


@pytest.fixture
def capital_ids(exact_server) -> tuple[int, ...]:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    body = {"messages": messages}
    return tuple(httpx.post(f"{exact_server.url}/v1/uq/encode", json=body).json()["token_ids"])


def rows_of(choice: dict, name: str = "uncertainty") -> np.ndarray:
    return read_rows(base64.b64decode(choice[name]["rows"]))


def complete(server, ids, **options) -> dict:
    body = {"prompt": list(ids), "uncertainty": "rows", "return_token_ids": True, **options}
    return server.post("completions", **body)


def assert_exact(choice, *, count: int) -> None:
    """The rows follow from the whole distributions, which are in the answer, too."""
    rows, tokens = rows_of(choice), choice["token_ids"]
    assert choice["uncertainty"]["exact"] is True and len(tokens) == count
    np.testing.assert_array_equal(column(rows, "token"), tokens)
    logprobs = whole_distributions(choice)
    found, expected = exact_statistics(rows), exact_statistics(dense_rows(logprobs))
    np.testing.assert_allclose(found["entropy"], expected["entropy"], **CLOSE)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-6, err_msg=name)
    own = logprobs[np.arange(count), tokens]
    np.testing.assert_allclose(column(rows, "logprob"), own, **CLOSE)
    ranks = (logprobs >= own[:, None]).sum(-1)
    np.testing.assert_array_equal(column(rows, "rank"), ranks)
    assert choice["uncertainty"]["entropy"] == found["entropy"].tolist()


def whole_distributions(choice) -> np.ndarray:
    """Return all log-probabilities, [T, V], in float64; those in float32 do not quite add up."""
    tops = choice["logprobs"]["top_logprobs"]
    logprobs = np.full((len(tops), VOCABULARY), -np.inf)
    for row, top in zip(logprobs, tops, strict=True):
        ids = [int(one.removeprefix("token_id:")) for one in top]
        row[ids] = list(top.values())
    logprobs[logprobs < -9000] = -np.inf  # JSON has no infinity
    return logprobs - np.logaddexp.reduce(logprobs, -1, keepdims=True)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 1.3, "seed": 3},
        {"temperature": 1.0, "seed": 4, "top_p": 0.5, "repetition_penalty": 1.2},
        {"temperature": 0, "logit_bias": {"1000": 100.0}},
        {"temperature": 0, "allowed_token_ids": [1000, 1001, 1002]},
        {"temperature": 1.0, "seed": 5, "structured_outputs": {"regex": "[A-Z][a-z]{8}"}},
        {"temperature": 0, "bad_words": [" Paris", "The"], "min_tokens": 3},
    ],
    ids=lambda one: ",".join(one),
)
def test_a_completion(exact_server, capital_ids, sampling):
    answer = complete(exact_server, capital_ids, max_tokens=3, **WHOLE, **sampling)
    assert_exact(answer["choices"][0], count=3)


@pytest.mark.parametrize("logprobs", [None, 0, 5, {"logprobs": 2, "logprob_token_ids": [7, 8]}])
def test_it_is_the_same_whatever_log_probabilities_are_wanted(exact_server, capital_ids, logprobs):
    own = logprobs if isinstance(logprobs, dict) else {"logprobs": logprobs}
    options = {"max_tokens": 3, "temperature": 0}
    expected = complete(exact_server, capital_ids, **options, **WHOLE)["choices"][0]
    found = complete(exact_server, capital_ids, **options, **own)["choices"][0]
    assert found["uncertainty"]["exact"] is True
    np.testing.assert_allclose(rows_of(found), rows_of(expected), rtol=1e-6, atol=1e-6)


def embedded(sampling: dict) -> dict:
    bias = {int(token): value for token, value in sampling.get("logit_bias", {}).items()}
    return {**sampling, "logit_bias": bias} if bias else sampling


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 1.0, "seed": 3},
        {"temperature": 0, "logit_bias": {"1000": 100.0}},
        {"temperature": 0, "structured_outputs": {"choice": ["Paris", "London"]}},
    ],
    ids=lambda one: ",".join(one),
)
def test_the_same_as_the_embedded_engine_generates(exact_server, backend, capital_ids, sampling):
    request = Request(capital_ids, sampling={**embedded(sampling), "max_tokens": 8})
    (candidate,) = backend.run(backend.generate(request))
    choice = complete(exact_server, capital_ids, max_tokens=8, **sampling)["choices"][0]
    assert choice["token_ids"] == list(candidate.token_ids)
    np.testing.assert_allclose(choice["uncertainty"]["entropy"], candidate.trace.entropy, **CLOSE)
    np.testing.assert_allclose(column(rows_of(choice), "logprob"), candidate.trace.logprob, **CLOSE)


def test_each_of_four_samples_has_its_own(exact_server, capital_ids):
    options = {"n": 4, "temperature": 1.3, "seed": 1, "max_tokens": 3}
    answer = complete(exact_server, capital_ids, **options, **WHOLE)
    assert len({tuple(one["token_ids"]) for one in answer["choices"]}) == 4
    for choice in answer["choices"]:
        assert_exact(choice, count=3)


async def test_a_mixed_batch_with_the_same_request_ids(exact_server, capital_ids):
    """Some want nothing, some top log-probabilities, some an id that others have, too."""
    ids = list(capital_ids)
    common = {"model": exact_server.model, "return_token_ids": True, "ignore_eos": True}
    bodies = [
        {"prompt": ids, "uncertainty": "rows", "request_id": "same", "logprobs": 1},
        {"prompt": ids[4:], "uncertainty": "rows", "request_id": "same"},
        {"prompt": ids[2:], "uncertainty": False, "logprobs": 7},
        {"prompt": ids[3:], "uncertainty": False},
        {"prompt": ids[1:], "uncertainty": "rows", "logprobs": 20, "request_id": "same"},
        {"prompt": ids[5:], "uncertainty": "rows", "structured_outputs": {"regex": "[a-z]{6}"}},
    ]
    async with httpx.AsyncClient(timeout=300) as client:
        answers = await asyncio.gather(
            *(
                client.post(
                    f"{exact_server.url}/v1/completions",
                    json={**common, **body, "max_tokens": 4 + place, "temperature": 0},
                )
                for place, body in enumerate(bodies)
            )
        )
    choices = [one.json()["choices"][0] for one in answers]
    for place in (0, 1, 4, 5):
        options = {**bodies[place], "max_tokens": 4 + place, "temperature": 0, "ignore_eos": True}
        alone = await asyncio.to_thread(
            lambda o=options: exact_server.post("completions", return_token_ids=True, **o)
        )
        assert choices[place]["token_ids"] == alone["choices"][0]["token_ids"]
        np.testing.assert_allclose(
            rows_of(choices[place]), rows_of(alone["choices"][0]), rtol=1e-4, atol=1e-4
        )
    assert "uncertainty" not in choices[2] and "uncertainty" not in choices[3]
    widths = [len(top) for top in choices[2]["logprobs"]["top_logprobs"]]
    assert min(widths) == max(widths) == 7


def test_a_batch_of_prompts(exact_server, capital_ids):
    prompts = [list(capital_ids), list(capital_ids[3:])]
    answer = exact_server.post(
        "completions",
        prompt=prompts,
        n=2,
        temperature=1.0,
        seed=7,
        max_tokens=2,
        uncertainty="rows",
        return_token_ids=True,
        **WHOLE,
    )
    assert [one["index"] for one in answer["choices"]] == [0, 1, 2, 3]
    for choice in answer["choices"]:
        assert_exact(choice, count=2)


@pytest.mark.parametrize("stop", [[], ["is"]], ids=["no stop", "a stop string"])
@pytest.mark.parametrize("route", ["completions", "chat/completions"])
def test_the_sum_of_a_stream_is_the_answer(exact_server, capital_ids, route, stop):
    body = {"max_tokens": 9, "temperature": 0.8, "seed": 3, "n": 2, "uncertainty": "rows"}
    body["stop"] = stop
    if route == "completions":
        body["prompt"] = list(capital_ids)
    else:
        body["messages"] = [{"role": "user", "content": "What is the capital of France?"}]
    whole = exact_server.post(route, **body)
    entropies: dict[int, list] = {}
    rows: dict[int, list] = {}
    last: dict[int, dict] = {}
    for line in exact_server.stream(route, **body):
        for choice in json.loads(line)["choices"]:
            if (fields := choice.get("uncertainty")) is None:
                continue
            got = entropies.setdefault(choice["index"], [])
            assert fields["first"] == len(got)
            got += fields["entropy"]
            rows.setdefault(choice["index"], []).append(rows_of(choice))
            last[choice["index"]] = fields
    for choice in whole["choices"]:
        index = choice["index"]
        np.testing.assert_allclose(
            entropies[index], choice["uncertainty"]["entropy"], rtol=0, atol=1e-6
        )
        np.testing.assert_allclose(
            np.concatenate(rows[index]), rows_of(choice), rtol=1e-5, atol=1e-5
        )
        assert last[index]["scores"]["mean_entropy"] == pytest.approx(
            choice["uncertainty"]["scores"]["mean_entropy"], abs=1e-6
        )


def test_log_probabilities_of_a_chat_have_entropies(exact_server):
    answer = exact_server.post(
        "chat/completions",
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=4,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    )
    choice = answer["choices"][0]
    found = [one["entropy"] for one in choice["logprobs"]["content"]]
    assert found == choice["uncertainty"]["entropy"] and len(found) == 4


def test_a_tool_call_has_the_statistics_of_all_its_tokens(exact_server):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    body = {
        "messages": [{"role": "user", "content": "Look."}],
        "tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "max_tokens": 40,
        "temperature": 0,
        "return_token_ids": True,
    }
    whole = exact_server.post("chat/completions", **body)["choices"][0]
    assert len(whole["uncertainty"]["entropy"]) == len(whole["token_ids"])
    streamed = [
        value
        for line in exact_server.stream("chat/completions", **{**body, "return_token_ids": False})
        for choice in json.loads(line)["choices"]
        for value in choice.get("uncertainty", {"entropy": []})["entropy"]
    ]
    np.testing.assert_allclose(streamed, whole["uncertainty"]["entropy"], rtol=0, atol=1e-6)
