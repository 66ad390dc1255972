"""The embedded engine in modes that a CPU does not have. `docs/gpu.md` says which were run."""

import numpy as np
import pytest

from tests.conftest import full_vocabulary_entropy
from uq_llm_integrations import Request, VLLMEngineBackend
from uq_llm_integrations.methods.bounds import bounded

LOOSE = {"rtol": 0, "atol": 0.05}
"""Prefill and decoding use other kernels."""

# A data parallel engine and speculative decoding are refused: only a server has them.
MODES = {
    "V1-runner": ("0", {}, 1),
    "V2-runner": ("1", {"async_scheduling": True}, 1),
    "FP8": (None, {"quantization": "fp8", "dtype": "bfloat16"}, 1),
    "tensor-parallel": (None, {"tensor_parallel_size": 2}, 2),
    "pipeline-parallel": (None, {"pipeline_parallel_size": 2}, 2),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((runner, arguments), id=name, marks=pytest.mark.gpus(count))
        for name, (runner, arguments, count) in MODES.items()
    ],
)
def engine(request):
    runner, arguments = request.param
    sizes = {"max_model_len": 1024, "max_num_seqs": 16, "gpu_memory_utilization": 0.1}
    with pytest.MonkeyPatch.context() as patch:
        if runner is not None:
            patch.setenv("VLLM_USE_V2_MODEL_RUNNER", runner)
        with VLLMEngineBackend("smollm2", max_logprobs=-1, **sizes, **arguments) as engine:
            yield engine


def test_entropies_follow_from_the_whole_distributions(engine):
    prompt_ids = engine.run(engine.encode("What is the capital of France?", chat=True))
    sampling = {"temperature": 1.0, "max_tokens": 8, "seed": 1}
    request = Request(prompt_ids, n=4, top_logprobs=-1, sampling=sampling)
    for candidate in engine.run(engine.generate(request)):
        trace = candidate.trace
        expected = full_vocabulary_entropy(trace)
        assert trace.is_exact
        np.testing.assert_allclose(trace.entropy, expected, rtol=0, atol=1e-5)


def test_texts_are_scored_as_they_were_generated(engine, request):
    """On the V2 runner the probe does not see given text, and its entropies are bounds."""
    is_v1 = request.node.callspec.id == "V1-runner"
    prompt_ids = engine.run(engine.encode("The capital of France is"))
    greedy = Request(prompt_ids, sampling={"temperature": 0, "max_tokens": 8})
    (candidate,) = engine.run(engine.generate(greedy))
    (scored,) = engine.run(engine.score_all(prompt_ids, [candidate.token_ids]))
    expected, found = candidate.trace, bounded(scored.trace)
    np.testing.assert_allclose(found.logprob, expected.logprob, **LOOSE)
    if is_v1 or found.is_exact:
        np.testing.assert_allclose(found.entropy, expected.entropy, **LOOSE)
    else:
        assert "top k" in found.why_inexact
        assert (found.entropy_lower <= expected.entropy + LOOSE["atol"]).all()
        assert (expected.entropy <= found.entropy_upper + LOOSE["atol"]).all()
