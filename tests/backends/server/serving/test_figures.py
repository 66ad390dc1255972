"""What a real server says of itself: its capabilities and its metrics."""

import httpx
import pytest

from uq_llm_integrations.backends.token_statistics import COLUMNS

pytestmark = pytest.mark.engine


def samples(server) -> dict[str, float]:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    pairs = (one.rsplit(" ", 1) for one in lines if one.startswith("uq_llm:"))
    return {name: float(value) for name, value in pairs}


def test_answers_are_counted(exact_server):
    body = {"prompt": "The", "max_tokens": 3, "temperature": 0}
    entropies = exact_server.post("completions", **body)["choices"][0]["uncertainty"]
    before = samples(exact_server)
    exact_server.post("completions", **body)
    exact_server.post("completions", **body, uncertainty=False)
    list(exact_server.stream("completions", **body))
    inexact = {"n": 2, "use_beam_search": True}
    answer = exact_server.post("completions", **{**body, **inexact})
    assert [one["uncertainty"]["exact"] for one in answer["choices"]] == [False, False]
    now = samples(exact_server)
    label = 'model_name="smollm2"'

    def gained(name: str) -> float:
        return now[name] - before[name]

    assert gained(f'uq_llm:answers_total{{exact="true",{label}}}') == 2
    assert gained(f'uq_llm:answers_total{{exact="false",{label}}}') == 2
    assert gained(f"uq_llm:answer_mean_entropy_nats_count{{{label}}}") == 2
    mean = entropies["scores"]["mean_entropy"]
    found = gained(f"uq_llm:answer_mean_entropy_nats_sum{{{label}}}")
    assert found == pytest.approx(2 * mean, abs=1e-4)


def test_capabilities(exact_server):
    found = httpx.get(f"{exact_server.url}/v1/uq/capabilities").json()
    assert found["columns"] == list(COLUMNS) and found["exact"] is True
    assert (found["model"], found["vocabulary_size"]) == ("smollm2", 49_152)
    assert (found["context_length"], found["block_size"]) == (1024, 128)
