"""The probe against all log-probabilities of the vocabulary, on the real engine."""

import asyncio
from contextlib import suppress
from unittest.mock import patch

import numpy as np
import pytest
from vllm.v1.metrics.reader import get_metrics_snapshot

from tests.conftest import eventually, full_vocabulary, full_vocabulary_entropy
from uq_llm_integrations import Candidate, Request, Single, token_max
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics
from uq_llm_integrations.strategies.base import Run
from uq_llm_integrations.strategies.streaming import stream_strategy

pytestmark = pytest.mark.engine

WHOLE = -1


def assert_exact(candidate: Candidate) -> None:
    trace = candidate.trace
    assert len(trace) == len(candidate.token_ids) > 0
    np.testing.assert_allclose(trace.entropy, full_vocabulary_entropy(trace), rtol=0, atol=1e-6)


def test_entropies_of_a_greedy_answer(backend, capital_ids):
    request = Request(capital_ids, top_logprobs=WHOLE, sampling={"temperature": 0})
    (candidate,) = backend.run(backend.generate(request))
    assert "Paris" in candidate.text
    assert_exact(candidate)


def test_all_other_statistics(backend, capital_ids):
    sampling = {"temperature": 1.0, "max_tokens": 4, "seed": 3}
    request = Request(capital_ids, top_logprobs=WHOLE, sampling=sampling)
    (candidate,) = backend.run(backend.generate(request))
    expected = exact_statistics(dense_rows(full_vocabulary(candidate.trace)))
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(candidate.trace, name), values, rtol=1e-6, err_msg=name)


def test_each_of_four_samples_has_its_own_entropies(backend, capital_ids):
    sampling = {"temperature": 1.3, "max_tokens": 5, "seed": 1}
    request = Request(capital_ids, n=4, top_logprobs=WHOLE, sampling=sampling)
    candidates = backend.run(backend.generate(request))
    assert len({candidate.token_ids for candidate in candidates}) == 4
    for candidate in candidates:
        assert_exact(candidate)


async def test_entropies_in_a_mixed_batch_with_an_aborted_neighbour(backend, capital_ids):
    """Rows move within the batch as neighbours come and go."""
    neighbours = [
        Request(capital_ids[: 10 + i], sampling={"max_tokens": 2 + 3 * i, "top_p": 0.8})
        for i in range(4)
    ]
    penalised = {"max_tokens": 8, "repetition_penalty": 1.2, "top_k": 50, "ignore_eos": True}
    observed = [
        Request(capital_ids, top_logprobs=WHOLE, sampling={"temperature": 0, "max_tokens": 9}),
        Request(capital_ids[5:], top_logprobs=WHOLE, sampling=penalised),
    ]
    doomed = asyncio.create_task(
        backend.generate(Request(capital_ids, sampling={"max_tokens": 500, "ignore_eos": True}))
    )
    tasks = [asyncio.create_task(backend.generate(request)) for request in [*neighbours, *observed]]
    await asyncio.sleep(0.5)
    doomed.cancel()
    results = await asyncio.gather(*tasks)
    with suppress(asyncio.CancelledError):
        await doomed
    for (candidate,) in results[len(neighbours) :]:
        assert_exact(candidate)


async def test_entropies_of_preempted_requests(backend):
    """Seven prompts of three blocks fill the cache; their fourth block drives some out of it."""
    before = preemptions()
    sampling = {"max_tokens": 9, "ignore_eos": True, "temperature": 1.0, "seed": 5}
    requests = [
        Request(
            tuple(np.random.default_rng(i).integers(100, 40000, 378).tolist()),
            top_logprobs=WHOLE if i < 2 or i > 5 else 0,
            sampling=sampling,
        )
        for i in range(7)
    ]
    results = await asyncio.gather(*(backend.generate(request) for request in requests))
    assert preemptions() > before
    for (candidate,), request in zip(results, requests, strict=True):
        assert len(candidate.token_ids) == 9
        assert candidate.trace.is_exact
        if request.top_logprobs == WHOLE:
            assert_exact(candidate)


def test_entropies_while_streaming(backend, capital_ids):
    sampling = {"temperature": 0.7, "max_tokens": 5, "seed": 2}
    request = Request(capital_ids, top_logprobs=WHOLE, sampling=sampling)
    pieces = list(backend.iterate(backend.stream(request)))
    candidate = pieces[-1].candidate
    assert candidate is not None
    assert_exact(candidate)
    assert "".join(piece.text for piece in pieces) == candidate.text
    assert sum((piece.token_ids for piece in pieces), ()) == candidate.token_ids
    streamed = np.concatenate([piece.trace.logprob for piece in pieces])
    np.testing.assert_array_equal(streamed, candidate.trace.logprob)


def test_a_live_stream_returns_each_tokens_entropy_at_once(backend, capital_ids):
    sampling = {"temperature": 0.7, "max_tokens": 5, "seed": 2}
    request = Request(capital_ids, sampling=sampling, live=True)
    pieces = list(backend.iterate(backend.stream(request)))
    assert len(pieces) > 3
    live = np.concatenate([piece.trace.entropy for piece in pieces])
    np.testing.assert_array_equal(live, pieces[-1].candidate.trace.entropy)


def test_a_stream_is_cut_off_inside_the_engine(backend, capital_ids):
    sampling = {"temperature": 0.0, "max_tokens": 50}
    stop_if = token_max("entropy") > 0.5

    async def streamed():
        request = Request(capital_ids, sampling=sampling)
        run = Run(MeteredBackend(backend), request)
        return [one async for one in stream_strategy(Single(), run, stop_if)]

    *before, last = backend.run(streamed())
    candidate = last.result.candidate
    assert candidate.finish_reason == "early_stop"
    assert last.result.sampling_end.kind == "stopped_early"
    assert candidate.trace.entropy[-1] > 0.5 >= max(candidate.trace.entropy[:-1], default=0.0)
    assert last.result.text == "".join(piece.text for piece in [*before, last])


def test_entropies_under_a_grammar(backend, capital_ids):
    from vllm.sampling_params import StructuredOutputsParams

    sampling = {
        "structured_outputs": StructuredOutputsParams(choice=["Paris", "London"]),
        "temperature": 1.0,
    }
    request = Request(capital_ids, top_logprobs=WHOLE, sampling=sampling)
    (candidate,) = backend.run(backend.generate(request))
    trace = candidate.trace
    assert candidate.text in {"Paris", "London"}
    assert trace.grammar
    expected = exact_statistics(dense_rows(full_vocabulary(trace)))
    np.testing.assert_allclose(trace.entropy, expected["entropy"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(trace.support, expected["support"])
    assert trace.support[0] < trace.vocabulary_size


def test_entropies_of_the_model_behind_a_bias_and_a_mask(backend, capital_ids):
    """Both change what is sampled from, but not the model's own distribution, which is scored."""
    sampling = {"temperature": 0, "max_tokens": 3, "logit_bias": {504: 3.0}, "min_tokens": 2}
    request = Request(capital_ids, top_logprobs=WHOLE, sampling=sampling)
    (candidate,) = backend.run(backend.generate(request))
    assert candidate.token_ids[0] == 504
    assert_exact(candidate)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"temperature": 1.2, "seed": 4, "top_p": 0.9, "top_k": 30},
        {"temperature": 0, "logit_bias": {504: 3.0}, "min_tokens": 3, "bad_words": ["Paris"]},
        {"temperature": 0.8, "seed": 4, "repetition_penalty": 1.3, "stop": ["."]},
        {"temperature": 1.0, "seed": 4, "structured_outputs": {"choice": ["Paris", "London"]}},
    ],
)
async def test_tokens_have_the_log_probabilities_that_the_engine_would_give(
    backend, capital_ids, sampling
):
    """Those of the first request are kept by the probe, those of the second sent by the engine."""
    sampling = {"max_tokens": 6, **sampling}
    requests = [Request(capital_ids, top_logprobs=k, sampling=sampling) for k in (0, WHOLE)]
    llm = backend.start().llm
    with patch.object(llm, "generate", wraps=llm.generate) as generate:
        (kept,), (sent,) = await asyncio.gather(*map(backend.generate, requests))
    assert [call.args[1].logprobs for call in generate.call_args_list] == [None, WHOLE]
    assert kept.token_ids == sent.token_ids
    assert kept.text == sent.text
    is_sampled = sent.trace.top_ids == np.array(sent.token_ids)[:, None]
    exact = full_vocabulary(sent.trace)[is_sampled]
    # Two rows of one batch differ by the rounding of the model itself.
    np.testing.assert_allclose(kept.trace.logprob, exact, rtol=0, atol=5e-5)
    np.testing.assert_array_equal(kept.trace.rank, sent.trace.rank)


async def test_nothing_is_kept_of_finished_and_cancelled_requests(backend, capital_ids):
    await backend.generate(Request(capital_ids, n=2, sampling={"max_tokens": 2}))
    task = asyncio.create_task(
        backend.generate(Request(capital_ids, sampling={"max_tokens": 500, "ignore_eos": True}))
    )
    await asyncio.sleep(0.5)
    task.cancel()
    process = backend.start()

    async def nothing_is_recorded() -> bool:
        return await process.loop.arun(process.recorded()) == []

    await eventually(nothing_is_recorded)


def preemptions() -> float:
    return sum(m.value for m in get_metrics_snapshot() if m.name == "vllm:num_preemptions")
