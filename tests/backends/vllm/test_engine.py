"""The embedded backend on the real engine."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from vllm.v1.metrics.reader import get_metrics_snapshot

from tests.conftest import ENGINE_ARGUMENTS, eventually
from uq_llm_integrations import EarlyStop, Request, VLLMEngineBackend, errors
from uq_llm_integrations.methods.bounds import bounded

pytestmark = pytest.mark.engine

GREEDY = {"temperature": 0, "max_tokens": 16}


def test_backends_with_the_same_arguments_share_one_engine(backend):
    with VLLMEngineBackend("smollm2", **ENGINE_ARGUMENTS) as other:
        assert other.start() is backend.start()
    assert backend.run(backend.encode("still running"))


def test_a_ready_engine_is_accepted(backend, capital_ids):
    ready = VLLMEngineBackend(engine=backend.start().llm)
    (candidate,) = ready.run(ready.generate(Request(capital_ids, sampling=GREEDY)))
    assert "Paris" in candidate.text
    assert candidate.trace.is_exact
    ready.close()
    assert backend.run(backend.generate(Request(capital_ids, sampling=GREEDY)))


def test_seeds_make_samples_repeatable_and_different(backend, capital_ids):
    request = Request(capital_ids, n=3, sampling={"temperature": 1.2, "max_tokens": 8, "seed": 7})
    first, second = (backend.run(backend.generate(request)) for _ in range(2))
    assert [one.token_ids for one in first] == [one.token_ids for one in second]
    assert len({one.token_ids for one in first}) > 1


def test_a_stop_string_ends_the_text_but_keeps_its_tokens(backend, capital_ids):
    request = Request(capital_ids, sampling=GREEDY | {"stop": [" Paris"]})
    (candidate,) = backend.run(backend.generate(request))
    assert candidate.text == "The capital of France is"
    assert (candidate.finish_reason, candidate.stop_reason) == ("stop", " Paris")
    assert len(candidate.trace) == len(candidate.token_ids) == 6
    assert candidate.trace.is_exact


@pytest.mark.parametrize(
    "sampling",
    [
        {"ignore_eos": True, "skip_special_tokens": False},
        {"stop_token_ids": list(range(0, 49152, 9))},
        {"stop_token_ids": list(range(0, 49152, 9)), "include_stop_str_in_output": True},
    ],
)
def test_the_text_is_the_one_that_vllm_gives_token_by_token(backend, capital_ids, sampling):
    """A stop string that never comes makes vLLM give it."""
    sampling = {"temperature": 2.0, "max_tokens": 24, "seed": 3} | sampling
    texts = []
    for never in ([], ["\0"]):
        request = Request(capital_ids, n=8, sampling=sampling | {"stop": never})
        texts.append([one.text for one in backend.run(backend.generate(request))])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 8


def test_a_stop_token_is_returned(backend, capital_ids):
    request = Request(capital_ids, sampling=GREEDY | {"stop_token_ids": [7042]})
    (candidate,) = backend.run(backend.generate(request))
    assert candidate.stop_reason == candidate.token_ids[-1] == 7042


def test_the_texts_of_the_tokens_join_to_the_text(backend):
    ids = backend.run(backend.encode_continuation("naïve 東京 🙂🙂 Zürich"))
    texts = backend.run(backend.token_texts(ids))
    assert len(texts) == len(ids)
    assert "".join(texts) == "naïve 東京 🙂🙂 Zürich"


def test_given_text_is_scored_as_it_was_generated(backend, capital_ids):
    """Prefill and decoding round differently in float32, by less than 1e-3 nats."""
    (generated,) = backend.run(backend.generate(Request(capital_ids, sampling=GREEDY)))
    scored = backend.run(backend.score(capital_ids, generated.token_ids))
    np.testing.assert_allclose(scored.trace.logprob, generated.trace.logprob, rtol=0, atol=1e-3)
    np.testing.assert_allclose(scored.trace.entropy, generated.trace.entropy, rtol=0, atol=1e-3)


def test_where_the_probe_sees_the_logits_only_the_rest_is_bounded(
    backend, capital_ids, monkeypatch
):
    """As on vLLM's V2 runner: given text, and a bias that the log-probabilities do not show."""
    exact = backend.run(backend.score(capital_ids, (504, 3575)))
    process = backend.start()

    async def sees_raw() -> bool:
        return False

    monkeypatch.setattr(process, "sees_raw", sees_raw)
    scored = bounded(backend.run(backend.score(capital_ids, (504, 3575))).trace)
    assert "top k" in scored.why_inexact
    assert (scored.entropy_lower <= exact.trace.entropy + 1e-3).all()
    assert (exact.trace.entropy <= scored.entropy_upper + 1e-3).all()
    biased = Request(capital_ids, sampling={"max_tokens": 1, "logit_bias": {504: 3.0}})
    (candidate,) = backend.run(backend.generate(biased))
    assert "logit_bias" in candidate.trace.why_inexact
    stopped = Request(capital_ids, sampling=biased.sampling, early_stop=EarlyStop(1.0))
    with pytest.raises(errors.InvalidRequestError, match="needs the probe"):
        backend.run(backend.generate(stopped))


def test_scoring_nothing_gives_an_empty_trace(backend, capital_ids):
    assert len(backend.run(backend.score(capital_ids, ())).trace) == 0


def test_threads_meet_in_one_batch(backend, capital_ids):
    """Sixteen blocking callers are answered together, each with its own answer."""
    barrier = threading.Barrier(16)

    def generate(number: int) -> tuple[int, ...]:
        barrier.wait()
        sampling = {"max_tokens": 4 + number % 3, "temperature": 0, "ignore_eos": True}
        (candidate,) = backend.run(backend.generate(Request(capital_ids, sampling=sampling)))
        return candidate.token_ids

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(generate, range(16)))
    assert [len(answer) for answer in answers] == [4 + number % 3 for number in range(16)]


async def test_a_cancelled_request_stops_the_engines_work(backend, capital_ids):
    task = asyncio.create_task(
        backend.generate(Request(capital_ids, sampling={"max_tokens": 900, "ignore_eos": True}))
    )
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def engine_is_idle() -> bool:
        before = generated_tokens()
        await asyncio.sleep(0.3)
        return generated_tokens() == before

    await eventually(engine_is_idle)
    assert backend.start().llm.get_num_unfinished_requests() == 0


async def test_an_abandoned_stream_stops_the_engines_work(backend, capital_ids):
    request = Request(capital_ids, sampling={"max_tokens": 900, "ignore_eos": True})
    stream = backend.stream(request)
    async for _ in stream:
        break
    await stream.aclose()
    assert backend.start().llm.get_num_unfinished_requests() == 0


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Request(()), errors.EmptyPromptError),
        (Request((1,) * 1024), errors.PromptTooLongError),
        (Request((1,), n=0), errors.InvalidRequestError),
        (Request((1,), n=129), errors.InvalidRequestError),
        (Request((1,), sampling={"temperature": float("nan")}), errors.InvalidRequestError),
        (Request((1,), sampling={"stop": [""]}), errors.InvalidRequestError),
        (Request((1, 10**6)), errors.InvalidRequestError),
        (Request((1,), sampling={"top_k": -7}), errors.InvalidRequestError),
    ],
)
def test_bad_requests_get_typed_errors(backend, request_, error):
    with pytest.raises(error):
        backend.run(backend.generate(request_))


def test_a_blocking_call_on_the_engines_loop_is_refused_not_hung(backend):
    async def wrong() -> None:
        backend.run(backend.encode("x"))

    with pytest.raises(RuntimeError, match="async method"):
        backend.run(wrong())


def generated_tokens() -> float:
    return sum(m.value for m in get_metrics_snapshot() if m.name == "vllm:generation_tokens")
