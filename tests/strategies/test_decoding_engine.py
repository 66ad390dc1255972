"""Early stop, aborted siblings, boundaries and steps on the real engine."""

import asyncio

import numpy as np
import pytest

from tests.conftest import eventually
from tests.strategies.running import run
from uq_llm_integrations import (
    BestOfN,
    Boundary,
    EarlyStop,
    InvalidRequestError,
    Request,
    SampleMonitor,
    SelfConsistency,
    Stepwise,
    score,
    score_truncated_sequence,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.strategies.base import Run
from uq_llm_integrations.strategies.streaming import stream_strategy

pytestmark = pytest.mark.engine

HOT = {"temperature": 1.2, "max_tokens": 24, "seed": 4, "ignore_eos": True}


def windows(values, size):
    return np.convolve(values, np.ones(size), "valid") / size


@pytest.mark.parametrize("statistic", ["entropy", "self_certainty"])
def test_a_sample_ends_itself_where_its_window_is_too_uncertain(backend, capital_ids, statistic):
    """Exactly there, with the same tokens up to there, and its neighbours undisturbed."""
    free = backend.run(backend.generate(Request(capital_ids, n=4, sampling=HOT)))

    def values(trace):
        if statistic == "entropy":
            return trace.entropy
        return trace.mean_logprob + np.log(trace.vocabulary_size)

    means = [windows(values(one.trace), 3) for one in free]
    above = float(np.median([mean.max() for mean in means]))
    rule = EarlyStop(above, window=3, statistic=statistic)
    stopped = backend.run(backend.generate(Request(capital_ids, 4, 0, HOT, early_stop=rule)))
    reasons = {one.finish_reason for one in stopped}
    assert reasons == {"early_stop", "length"}
    for before, after, mean in zip(free, stopped, means, strict=True):
        # The distribution that is too uncertain is the one of the token that is not sampled.
        over = np.flatnonzero(mean > above)
        kept = over[0] + 2 if len(over) else len(before.token_ids)
        assert after.token_ids == before.token_ids[:kept]
        assert len(after.trace) == kept
        assert (after.finish_reason == "early_stop") == bool(len(over))
        assert before.text.startswith(after.text)
        np.testing.assert_allclose(after.trace.entropy, before.trace.entropy[:kept], atol=1e-3)


def test_an_early_stop_while_streaming_gives_out_no_forced_token(backend, capital_ids):
    rule = EarlyStop(above=0.0, window=2)
    request = Request(capital_ids, sampling=HOT, early_stop=rule)
    pieces = list(backend.iterate(backend.stream(request)))
    candidate = pieces[-1].candidate
    assert candidate.finish_reason == "early_stop"
    assert len(candidate.token_ids) == 1
    assert sum((piece.token_ids for piece in pieces), ()) == candidate.token_ids
    assert "".join(piece.text for piece in pieces) == candidate.text


@pytest.mark.parametrize(
    ("rule", "sampling", "message"),
    [
        (EarlyStop(1.0), {"min_tokens": 3}, "min_tokens"),
        (3, {}, "early_stop"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(backend, capital_ids, rule, sampling, message):
    with pytest.raises(InvalidRequestError, match=message):
        backend.run(backend.generate(Request(capital_ids, sampling=sampling, early_stop=rule)))


def test_siblings_are_aborted_once_there_are_enough(backend, capital_ids):
    """What they sampled is kept, with its trace, and the engine stops working on them."""
    lengths = {"temperature": 1.0, "max_tokens": 150, "seed": 11}
    monitor = SampleMonitor(enough=lambda finished: len(finished) >= 1)
    candidates = backend.run(backend.generate(Request(capital_ids, 4, sampling=lengths), monitor))
    whole = [one for one in candidates if one.is_whole]
    aborted = [one for one in candidates if one.finish_reason == "abort"]
    assert len(whole) + len(aborted) == 4 and whole and aborted
    for one in aborted:
        assert 0 < len(one.token_ids) < 150
        assert one.trace.is_exact and len(one.trace) == len(one.token_ids)
    process = backend.start()

    async def nothing_is_left() -> bool:
        recorded = await process.loop.arun(process.recorded())
        return recorded == [] and not process.llm.output_processor.has_unfinished_requests()

    asyncio.run(eventually(nothing_is_left))


def test_a_sample_that_cannot_win_is_aborted(backend, capital_ids):
    request = Request(capital_ids, sampling={"temperature": 1.3, "max_tokens": 60, "seed": 3})
    patient = run(BestOfN(6, "maxprob", settle=False), request, backend)
    eager = run(BestOfN(6, "maxprob"), request, backend)
    assert eager.candidate.token_ids == patient.candidate.token_ids
    assert eager.usage.generated_tokens < patient.usage.generated_tokens
    assert eager.usage.saved_tokens > 0


def test_a_settled_vote_samples_no_more(backend, capital_ids):
    request = Request(capital_ids, sampling={"temperature": 0.01, "max_tokens": 12, "seed": 3})
    result = run(SelfConsistency(16, answer=lambda text: str("Paris" in text)), request, backend)
    assert "Paris" in result.text
    assert len(result.candidates) == 4, [one.text for one in result.candidates]
    assert result.sampling_end.kind == "stopped_early"


def test_a_boundary_is_cut_at_its_token(backend, capital_ids):
    free = Request(capital_ids, sampling={"temperature": 0, "max_tokens": 12})
    (whole,) = backend.run(backend.generate(free))
    until = Request(capital_ids, sampling=free.sampling, until=lambda text: "of France" in text)
    (cut,) = backend.run(backend.generate(until))
    pieces = list(backend.iterate(backend.stream(until)))
    assert cut.text == "The capital of France"
    for one in (cut, pieces[-1].candidate):
        assert one.finish_reason == "boundary"
        assert one.token_ids == whole.token_ids[: len(one.token_ids)]
        np.testing.assert_allclose(
            one.trace.logprob, whole.trace.logprob[: len(one.trace)], atol=1e-3
        )
    assert "".join(piece.text for piece in pieces) == cut.text


def test_steps_go_on_from_the_kept_tokens(backend):
    boundary = Boundary(("\n", "."), max_tokens=16)
    strategy = Stepwise(3, boundary=boundary, branch_when="token_max(entropy) > 1")
    prompt_ids = backend.run(backend.encode("List three fruits, one on each line.", chat=True))
    sampling = {"temperature": 0.7, "max_tokens": 60, "seed": 2}
    result = run(strategy, Request(prompt_ids, sampling=sampling), backend)
    candidate = result.candidate
    assert len(candidate.trace) == len(candidate.token_ids) <= 60
    assert result.usage.generated_tokens > len(candidate.token_ids)
    full = backend.run(backend.score(candidate.prompt_ids, candidate.token_ids))
    np.testing.assert_allclose(candidate.trace.logprob, full.trace.logprob, atol=2e-3)
    half = result.text[: len(result.text) // 2]
    assert score_truncated_sequence(backend, prompt_ids, half, [candidate]).is_sliced


def test_a_greedy_step_is_the_same_as_no_steps(backend, capital_ids):
    """Going on from ids changes nothing: the steps are those of one long generation."""
    sampling = {"temperature": 0, "max_tokens": 24}
    (whole,) = backend.run(backend.generate(Request(capital_ids, sampling=sampling)))
    strategy = Stepwise(1, boundary=Boundary((), max_tokens=5))
    stepped = run(strategy, Request(capital_ids, sampling=sampling), backend)
    assert stepped.candidate.token_ids == whole.token_ids
    assert stepped.text == whole.text
    condition = score("entropy") < 5
    assert condition(stepped) is True


@pytest.mark.parametrize("stop", [[], [" of France"], ["e capital of F"]])
def test_streamed_steps_add_up_to_the_answer_of_one_request(backend, capital_ids, stop):
    """Also where two steps make a stop string whole."""
    request = Request(capital_ids, sampling={"temperature": 0, "max_tokens": 24, "stop": stop})
    (once,) = backend.run(backend.generate(request))
    strategy = Stepwise(1, boundary=Boundary((" ",), max_tokens=2))
    way = Run(MeteredBackend(backend), request)
    pieces = list(backend.iterate(stream_strategy(strategy, way)))
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == pieces[-1].result.text == once.text
    candidate = pieces[-1].result.candidate
    assert (candidate.finish_reason, candidate.stop_reason) == (
        once.finish_reason,
        once.stop_reason,
    )
