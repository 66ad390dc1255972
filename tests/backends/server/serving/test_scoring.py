"""Teacher forcing on a real server: with a cold cache, a warm one, and the server's own answers."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from uq_llm_integrations.backends.token_statistics import column, exact_statistics, read_rows

pytestmark = pytest.mark.engine

CLOSE = {"rtol": 1e-6, "atol": 5e-6}
BEHIND_CACHE = {"rtol": 1e-4, "atol": 1e-4}
"""What a kernel computes behind cached tokens differs a bit from what it computes in one pass."""


def score(server, ids, first, **options) -> dict:
    body = {"prompt": list(ids), "uncertainty_from": first, "uncertainty": "rows"}
    return server.post("completions", **{**body, "max_tokens": 1, **options})


def assert_scored(backend, choice, ids, first, close=CLOSE) -> None:
    fields = choice["prompt_uncertainty"]
    assert fields["exact"] is True, fields["reason"]
    assert fields["first"] == first
    rows = read_rows(base64.b64decode(fields["rows"]))
    np.testing.assert_array_equal(column(rows, "token"), ids[first:])
    expected = backend.run(backend.score(tuple(ids[:first]), tuple(ids[first:])))
    np.testing.assert_allclose(exact_statistics(rows)["entropy"], expected.trace.entropy, **close)
    np.testing.assert_allclose(column(rows, "logprob"), expected.trace.logprob, **close)
    if close is CLOSE:
        np.testing.assert_array_equal(column(rows, "rank"), expected.trace.rank)


def test_cold_and_warm(exact_server, backend):
    ids = np.random.default_rng(0).integers(100, 40_000, 300).tolist()
    for _ in range(2):
        answer = score(exact_server, ids, 290)
        assert_scored(backend, answer["choices"][0], ids, 290)
    usage = metrics(exact_server, "vllm:prefix_cache_hits_total")
    score(exact_server, ids, 290)
    assert metrics(exact_server, "vllm:prefix_cache_hits_total") == usage + 256


@pytest.mark.parametrize("first", [1, 127, 128, 129, 256, 257, 299, 300])
def test_behind_any_number_of_tokens(exact_server, backend, first):
    ids = np.random.default_rng(1).integers(100, 40_000, 300).tolist()
    choice = score(exact_server, ids, first)["choices"][0]
    if first < len(ids):
        assert_scored(backend, choice, ids, first)
    else:
        assert choice["prompt_uncertainty"]["entropy"] == []


def test_the_servers_own_answer(exact_server, backend):
    """Its blocks are in the cache, which has no distributions."""
    ids = np.random.default_rng(2).integers(100, 40_000, 200).tolist()
    options = {"max_tokens": 150, "ignore_eos": True, "temperature": 0, "return_token_ids": True}
    answer = exact_server.post("completions", prompt=ids, **options)["choices"][0]
    both = ids + answer["token_ids"]
    choice = score(exact_server, both, len(ids))["choices"][0]
    assert_scored(backend, choice, both, len(ids), BEHIND_CACHE)
    np.testing.assert_allclose(
        choice["prompt_uncertainty"]["entropy"], answer["uncertainty"]["entropy"], **BEHIND_CACHE
    )


def test_a_whole_prompt_and_generation_in_one_request(exact_server, backend, capital_ids):
    ids = list(capital_ids)
    answer = score(exact_server, ids, 0, max_tokens=3, temperature=0)["choices"][0]
    fields = answer["prompt_uncertainty"]
    assert fields["entropy"][0] is None and fields["first"] == 0
    assert len(fields["entropy"]) == len(ids) and fields["exact"] is True
    expected = backend.run(backend.score(tuple(ids[:1]), tuple(ids[1:])))
    np.testing.assert_allclose(fields["entropy"][1:], expected.trace.entropy, **CLOSE)
    assert len(answer["uncertainty"]["entropy"]) == 3


def test_echo_with_log_probabilities_scores_the_prompt(exact_server, capital_ids):
    body = {"prompt": list(capital_ids), "echo": True, "logprobs": 2, "temperature": 0}
    choice = exact_server.post("completions", **body, max_tokens=2)["choices"][0]
    values = choice["logprobs"]["entropy"]
    assert values[0] is None and None not in values[1:]
    assert len(values) == len(choice["logprobs"]["tokens"]) == len(capital_ids) + 2
    nothing = exact_server.post("completions", **body, max_tokens=0)["choices"][0]
    assert nothing["uncertainty"]["entropy"] == []
    np.testing.assert_allclose(nothing["logprobs"]["entropy"][1:], values[1:-2], atol=1e-6)


def test_the_callers_own_prompt_log_probabilities_are_whole(exact_server, plain_server):
    ids = np.random.default_rng(3).integers(100, 40_000, 140).tolist()
    for _ in range(2):
        own = score(exact_server, ids, 135, prompt_logprobs=3, temperature=0)["choices"][0]
    body = {"prompt": ids, "max_tokens": 1, "prompt_logprobs": 3, "temperature": 0}
    plain = plain_server.post("completions", **body)["choices"][0]
    assert own["prompt_uncertainty"]["exact"] is True
    assert own["prompt_logprobs"] == plain["prompt_logprobs"]


def test_a_first_token_that_the_prompt_does_not_have(exact_server):
    response = exact_server.respond("completions", prompt=[1, 2, 3], uncertainty_from=4)
    assert response.status_code == 400
    assert "uncertainty_from is 4; the prompt has 3 tokens" in response.json()["error"]["message"]


def metrics(server, name: str) -> float:
    import httpx

    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(one.rsplit(" ", 1)[1]) for one in lines if one.startswith(f"{name}{{"))
