"""The Hugging Face backend with the real model."""

import asyncio
import gc
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import full_vocabulary, full_vocabulary_entropy
from uq_llm_integrations import (
    EarlyStop,
    HuggingFaceBackend,
    Inspection,
    Request,
    SampleMonitor,
    errors,
)
from uq_llm_integrations.backends.huggingface.generation import TokenBatch
from uq_llm_integrations.backends.huggingface.inspection import eager_attention
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics
from uq_llm_integrations.checkpoints import resolve_model

pytestmark = pytest.mark.engine

GREEDY = {"temperature": 0, "max_tokens": 12}
SAMPLED = {"temperature": 1.2, "max_tokens": 6, "seed": 7, "ignore_eos": True}


@pytest.fixture(scope="module")
def hf() -> Iterator[HuggingFaceBackend]:
    with HuggingFaceBackend("smollm2") as hf:
        hf.start()
        yield hf


@pytest.fixture(scope="module")
def ids(hf) -> tuple[int, ...]:
    return hf.run(hf.encode("What is the capital of France?", chat=True))


@pytest.fixture(scope="module")
def model():
    """The same model, for passes without the backend."""
    path = resolve_model("smollm2").path
    return AutoModelForCausalLM.from_pretrained(path, dtype="auto").eval()


def plain_pass(model, ids, **arguments):
    with torch.inference_mode():
        return model(torch.tensor([ids]), **arguments)


def test_greedy_tokens_are_those_of_transformers(hf, ids, model):
    for penalty in (1.0, 1.3):
        request = Request(ids, sampling=GREEDY | {"repetition_penalty": penalty})
        (candidate,) = hf.run(hf.generate(request))
        prompt = torch.tensor([ids])
        expected = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=12,
            do_sample=False,
            repetition_penalty=penalty,
        )
        assert candidate.token_ids == tuple(expected[0, len(ids) :].tolist())


def test_statistics_are_those_of_the_whole_vocabulary_before_any_filter(hf, ids):
    sampling = SAMPLED | {"top_k": 5, "top_p": 0.8, "repetition_penalty": 1.2}
    whole, top = (
        hf.run(hf.generate(Request(ids, n=2, top_logprobs=k, sampling=sampling))) for k in (-1, 3)
    )
    for candidate, short in zip(whole, top, strict=True):
        trace, tokens = candidate.trace, list(candidate.token_ids)
        assert len(trace) == 6
        np.testing.assert_allclose(trace.entropy, full_vocabulary_entropy(trace), rtol=0, atol=1e-6)
        for name, values in exact_statistics(dense_rows(full_vocabulary(trace))).items():
            np.testing.assert_allclose(getattr(trace, name), values, 1e-6, 1e-6, err_msg=name)
        np.testing.assert_array_equal(trace.logprob, trace.top_logprobs[range(6), tokens])
        ranks = (trace.top_logprobs >= trace.logprob[:, None]).sum(-1)
        np.testing.assert_array_equal(trace.rank, ranks)
        best = np.argsort(-trace.top_logprobs, axis=-1, kind="stable")[:, :3]
        np.testing.assert_array_equal(short.trace.top_ids, best)


def test_samples_repeat_with_their_seed_together_or_one_by_one(hf, ids, model):
    request = Request(ids, n=3, sampling=SAMPLED)
    together, again = (hf.run(hf.generate(request)) for _ in range(2))
    tokenizer = hf.run(hf.tokenizer())
    with HuggingFaceBackend(model, tokenizer=tokenizer, sequential_generation=True) as sequential:
        one_by_one = sequential.run(sequential.generate(request))
    tokens = [one.token_ids for one in together]
    assert tokens == [one.token_ids for one in again] == [one.token_ids for one in one_by_one]
    assert len(set(tokens)) > 1


def test_given_tokens_are_scored_as_a_plain_pass_would(hf, ids, model):
    continuations = [(504, 3575), (504, 3575, 282, 4649, 314, 7042, 30), (), (7042,)]
    candidates = hf.run(hf.score_all(ids, continuations, top_logprobs=2))
    for given, candidate in zip(continuations, candidates, strict=True):
        logits = plain_pass(model, ids + given).logits[0, len(ids) - 1 : -1]
        logprobs = logits.log_softmax(-1)[range(len(given)), list(given)]
        np.testing.assert_allclose(candidate.trace.logprob, logprobs, rtol=0, atol=1e-4)
        alone = hf.run(hf.score(ids, given, top_logprobs=2))
        np.testing.assert_allclose(candidate.trace.entropy, alone.trace.entropy, atol=1e-4)
        assert candidate.trace.top_ids.shape == (len(given), 2)
        assert candidate.token_ids == given


def test_activations_are_those_of_a_plain_pass(hf, ids, model):
    texts, layers = [ids[:9], ids, ids[:20]], (0, "middle", -1)
    maps = hf.run(hf.inspect_all(texts, Inspection(layers, "maps")))
    bands = hf.run(hf.inspect_all(texts, Inspection(attention="bands")))
    for text, found, band in zip(texts, maps, bands, strict=True):
        with eager_attention(model):
            plain = plain_pass(model, text, output_hidden_states=True, output_attentions=True)
        logprobs = plain.logits[0, :-1].log_softmax(-1)[range(len(text) - 1), list(text[1:])]
        np.testing.assert_allclose(found.logprob, logprobs, rtol=0, atol=1e-4)
        for layer, number in zip(layers, (0, 15, 30), strict=True):
            expected = plain.hidden_states[number][0]
            np.testing.assert_allclose(found.hidden[layer], expected, rtol=1e-3, atol=2e-3)
        attentions = torch.stack(plain.attentions)[:, 0].numpy()
        np.testing.assert_allclose(found.attention_maps, attentions, atol=1e-4)
        diagonal = np.diagonal(attentions, axis1=-2, axis2=-1)
        np.testing.assert_allclose(band.attention_self, diagonal, atol=1e-4)
        np.testing.assert_allclose(band.attention_last, attentions[:, :, -1], atol=1e-4)


def test_samples_end_as_on_vllm(hf, backend, ids):
    """Greedy texts, ids, finish and stop reasons are the same, and statistics to 2e-3 nats."""
    for sampling in (
        GREEDY,
        GREEDY | {"max_tokens": 4},
        GREEDY | {"stop": [" Paris"]},
        GREEDY | {"stop": "France is", "include_stop_str_in_output": True},
        GREEDY | {"stop_token_ids": [7042]},
        GREEDY | {"min_tokens": 10},
        GREEDY | {"ignore_eos": True},
    ):
        request = Request(ids, sampling=sampling, top_logprobs=2)
        (ours,), (vllms,) = (one.run(one.generate(request)) for one in (hf, backend))
        for name in ("token_ids", "text", "finish_reason", "stop_reason"):
            assert getattr(ours, name) == getattr(vllms, name), (sampling, name)
        for name in ("logprob", "entropy", "varentropy", "mean_logprob", "top_logprobs"):
            values = [getattr(one.trace, name) for one in (ours, vllms)]
            np.testing.assert_allclose(*values, rtol=0, atol=2e-3, err_msg=name)


def test_scores_are_those_of_vllm(hf, backend, ids):
    continuations = [(504, 3575, 282, 4649, 314, 7042, 30), (504, 7042)]
    for ours, vllms in zip(
        *(one.run(one.score_all(ids, continuations)) for one in (hf, backend)), strict=True
    ):
        assert ours.text == vllms.text
        np.testing.assert_allclose(ours.trace.logprob, vllms.trace.logprob, rtol=0, atol=2e-3)
        np.testing.assert_allclose(ours.trace.entropy, vllms.trace.entropy, rtol=0, atol=2e-3)


def test_an_early_stop_ends_where_vllms_does(hf, backend, ids):
    request = Request(ids, sampling=GREEDY, early_stop=EarlyStop(0.9, window=4))
    (ours,), (vllms,) = (one.run(one.generate(request)) for one in (hf, backend))
    assert ours.finish_reason == vllms.finish_reason == "early_stop"
    assert (ours.token_ids, ours.text) == (vllms.token_ids, vllms.text)


def test_a_monitor_aborts_what_is_needed_no_longer(hf, ids):
    """The first sample to end by itself is enough for all."""
    request = Request(ids, n=4, sampling={"temperature": 0.7, "max_tokens": 40, "seed": 1})
    candidates = hf.run(hf.generate(request, SampleMonitor(enough=lambda finished: True)))
    ended = [one for one in candidates if one.finish_reason != "abort"]
    assert ended
    lengths = {len(one.token_ids) for one in candidates}
    assert len(lengths) == 1  # all were left at the step at which the first ended
    hopeless = SampleMonitor(hopeless=lambda logprobs, finished: len(logprobs) >= 3)
    candidates = hf.run(hf.generate(request, hopeless))
    assert [(one.finish_reason, len(one.trace)) for one in candidates] == [("abort", 3)] * 4


def test_a_stream_adds_up_to_the_candidate(hf, ids):
    request = Request(ids, sampling=GREEDY | {"stop": [" Paris"]}, top_logprobs=1)
    pieces = list(hf.iterate(hf.stream(request)))
    candidate = pieces[-1].candidate
    assert "".join(piece.text for piece in pieces) == candidate.text == "The capital of France is"
    assert sum((piece.token_ids for piece in pieces), ()) == candidate.token_ids
    logprobs = np.concatenate([piece.trace.logprob for piece in pieces])
    np.testing.assert_array_equal(logprobs, candidate.trace.logprob)
    assert len(pieces) > 3


async def test_cancelling_stops_at_the_next_token(hf, ids, monkeypatch):
    steps, step = [], TokenBatch.step
    monkeypatch.setattr(TokenBatch, "step", lambda *given: steps.append(1) or step(*given))
    endless = Request(ids, sampling={"max_tokens": 2000, "ignore_eos": True})
    task = asyncio.create_task(hf.generate(endless))
    while len(steps) < 3:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    done = len(steps)
    await hf.generate(Request(ids, sampling=GREEDY | {"max_tokens": 1}))
    assert len(steps) <= done + 1


def test_too_little_memory_halves_the_samples_that_step_together(hf, ids, monkeypatch):
    request = Request(ids, n=5, sampling=SAMPLED)
    expected = [one.token_ids for one in hf.run(hf.generate(request))]
    sizes, step = [], TokenBatch.step

    def scarce(batch, kept):
        sizes.append(len(kept))
        if len(kept) > most:
            raise torch.OutOfMemoryError
        return step(batch, kept)

    monkeypatch.setattr(TokenBatch, "step", scarce)
    most = 2
    assert [one.token_ids for one in hf.run(hf.generate(request))] == expected
    assert sizes == [5, *[2] * 12, *[1] * 6]
    most = 0
    with pytest.raises(errors.EngineError, match="batches of 5, 2, 1;"):
        hf.run(hf.generate(request))
    with pytest.raises(errors.EngineError, match="batches of 1;"):
        list(hf.iterate(hf.stream(Request(ids))))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(()), "empty"),
        (Request((49152,)), "no token 49152; allowed are 0 to 49151"),
        (Request((1,) * 8192), "at most 8191 fit"),
        (Request((1,), sampling={"logit_bias": {1: 2.0}}), "does not support logit_bias"),
    ],
)
def test_requests_that_can_never_work_are_refused(hf, request_, message):
    with pytest.raises(errors.InvalidRequestError, match=message):
        hf.run(hf.generate(request_))


def test_inspections_that_can_never_work_are_refused(hf):
    for texts, inspection, message in (
        ([(1,)], Inspection((31,)), "no layer 31"),
        ([()], Inspection(), "empty"),
        ([(1,) * 8193], Inspection(), "at most 8192"),
        ([(1,)], Inspection(attention="all"), "'bands' and 'maps'"),
    ):
        with pytest.raises(errors.InvalidRequestError, match=message):
            hf.run(hf.inspect_all(texts, inspection))


def test_attention_maps_leave_a_models_own_attention_as_it_was(hf, ids, model):
    with HuggingFaceBackend(model, tokenizer=hf.run(hf.tokenizer())) as own:
        own.run(own.inspect_all([ids], Inspection(attention="maps")))
    # transformers has no public name for it.
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_an_unloaded_model_is_loaded_again_and_quantized_ones_are_inspected(
    ids, quantization, loaded
):
    with HuggingFaceBackend("smollm2", quantization=quantization) as quantized:
        before = quantized.run(quantized.inspect_all([ids], Inspection((-1,))))[0]
        quantized.unload()
        gc.collect()
        assert [model() for model in loaded] == [None]
        after = quantized.run(quantized.inspect_all([ids], Inspection((-1,))))[0]
    np.testing.assert_array_equal(before.hidden[-1], after.hidden[-1])
    assert before.hidden[-1].shape == (len(ids), 576)
