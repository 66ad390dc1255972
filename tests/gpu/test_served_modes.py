"""The plugin in every mode of vLLM's server that a CPU does not have.

`docs/gpu.md` says which were run.
"""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.backends.server.serving.test_exactness import rows_of, whole_distributions
from tests.vllm_server import VLLMServer, vllm_server
from uq_llm_integrations.backends.token_statistics import column, dense_rows, exact_statistics

V1, V2 = ({"VLLM_USE_V2_MODEL_RUNNER": one} for one in "01")
GUESSED = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}
BESIDE_OTHERS = ("--gpu-memory-utilization", "0.1")
COUNTING = "1 2 3 4 5 6 7 8 9 10 1 2 3 4 5 6 7"


@dataclass(frozen=True)
class Mode:
    """How a server is started: with CUDA graphs, whatever else there is."""

    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


MODES = {
    "V1-runner": (Mode(environment=V1), 1),
    "V2-runner": (Mode(("--async-scheduling",), V2), 1),
    "speculative": (Mode(("--speculative-config", json.dumps(GUESSED))), 1),
    "FP8": (Mode(("--quantization", "fp8", "--dtype", "bfloat16")), 1),
    "tensor-parallel": (Mode(("--tensor-parallel-size", "2")), 2),
    "pipeline-parallel": (Mode(("--pipeline-parallel-size", "2")), 2),
    "data-parallel": (Mode(("--data-parallel-size", "2")), 2),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(mode, id=name, marks=pytest.mark.gpus(count))
        for name, (mode, count) in MODES.items()
    ],
)
def server(request, tmp_path_factory):
    mode = request.param
    environment = {"TORCHDYNAMO_DISABLE": "0", **mode.environment}
    flags = ("--no-enforce-eager", *BESIDE_OTHERS, *mode.flags)
    room = tmp_path_factory.mktemp("gpu")
    with vllm_server(room, plugins="uq_llm", flags=flags, environment=environment) as server:
        yield server


def complete(server: VLLMServer, **options) -> list[dict]:
    body = {"prompt": COUNTING, "max_tokens": 12, "temperature": 0, "return_token_ids": True}
    return server.post("completions", **{**body, "uncertainty": "rows", **options})["choices"]


def test_statistics_follow_from_the_whole_distributions(server):
    (choice,) = complete(server, logprobs=-1, return_tokens_as_token_ids=True)
    assert choice["uncertainty"]["exact"] is True, choice["uncertainty"]["reason"]
    rows = rows_of(choice)
    logprobs = whole_distributions(choice)
    found, expected = exact_statistics(rows), exact_statistics(dense_rows(logprobs))
    np.testing.assert_allclose(found["entropy"], expected["entropy"], rtol=0, atol=1e-5)
    own = logprobs[np.arange(len(rows)), choice["token_ids"]]
    np.testing.assert_allclose(column(rows, "logprob"), own, rtol=0, atol=1e-5)


def test_rows_belong_to_their_tokens_in_a_mixed_batch(server):
    choices = complete(server, n=8, temperature=1.0, seed=1)
    assert len({tuple(one["token_ids"]) for one in choices}) > 1
    for choice in choices:
        assert choice["uncertainty"]["exact"] is True, choice["uncertainty"]["reason"]
        np.testing.assert_array_equal(column(rows_of(choice), "token"), choice["token_ids"])


def test_a_stream_has_the_tokens_of_the_answer(server):
    (choice,) = complete(server)
    body = {"prompt": COUNTING, "max_tokens": 12, "temperature": 0}
    events = map(json.loads, server.stream("completions", **body))
    found = [one["uncertainty"] for event in events for one in event["choices"]]
    entropies = [entropy for one in found for entropy in one["entropy"]]
    np.testing.assert_allclose(entropies, choice["uncertainty"]["entropy"], rtol=0, atol=1e-3)


def test_a_prompt_is_scored_as_it_was_generated(server):
    (choice,) = complete(server, prompt=[1, 2, 3])
    ids = choice["token_ids"]
    (scored,) = complete(server, prompt=[1, 2, 3, *ids], max_tokens=1, uncertainty_from=3)
    entropies = exact_statistics(rows_of(choice))["entropy"]
    again = exact_statistics(rows_of(scored, "prompt_uncertainty"))["entropy"]
    np.testing.assert_allclose(again, entropies, rtol=0, atol=0.05)  # other kernels, FP8 among them
