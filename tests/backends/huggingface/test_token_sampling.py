"""Sampling parameters, and where a sample ends, without a model: a token is a byte."""

import numpy as np
import pytest
import torch

from uq_llm_integrations import EarlyStop, EngineError, InvalidRequestError, Request
from uq_llm_integrations.backends.huggingface.forward import trace_of
from uq_llm_integrations.backends.huggingface.loading import EndTokens
from uq_llm_integrations.backends.huggingface.token_sampling import HFSampling, Sample

EOS, OTHER_END = 0, 1


def decode(ids: list[int]) -> str:
    return bytes(token for token in ids if token > OTHER_END).decode(errors="replace")


def sample_of(
    tokens: bytes, *, logits: torch.Tensor | None = None, room: int = 99, **fields
) -> Sample:
    """The sample after as many of the bytes as it takes."""
    sampling = HFSampling.of(fields.pop("sampling", {}))
    request = Request((65,), **fields)
    ends = EndTokens(EOS, frozenset({OTHER_END}))
    sample = Sample(0, request, sampling, ends, decode, room)
    row = torch.zeros(1, 256) if logits is None else logits
    for token in tokens:
        if sample.finish_reason is None:
            sample.add(token, trace_of(row, torch.tensor([token]), 0))
    return sample


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"presence_penalty": 1.0}, "does not support presence_penalty; allowed are ignore_eos"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_k": 1.5}, "top_k is 1.5; it must be a whole number"),
        ({"top_k": -2}, "top_k is -2"),
        ({"max_tokens": 2.5}, "max_tokens is 2.5; it must be a whole number"),
        ({"seed": "1"}, "seed"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids"),
    ],
)
def test_values_that_can_never_work_are_refused(sampling, message):
    with pytest.raises(InvalidRequestError, match=message):
        HFSampling.of(sampling)


def test_none_stands_for_the_default_and_one_stop_string_for_a_list():
    assert HFSampling.of({"max_tokens": None, "stop": "a"}) == HFSampling(stop=("a",))


def test_a_stop_string_across_tokens_is_kept_in_the_ids_only():
    candidate = sample_of(b"one END two", sampling={"stop": ["END"]}).outcome(256)
    assert (candidate.text, bytes(candidate.token_ids)) == ("one ", b"one END")
    assert (candidate.finish_reason, candidate.stop_reason) == ("stop", "END")
    assert len(candidate.trace) == 7
    shown = {"stop": "END", "include_stop_str_in_output": True}
    assert sample_of(b"one END two", sampling=shown).text == "one END"


def test_what_a_stop_string_may_take_back_is_not_shown():
    sampling = {"stop": ["END"]}
    shown = [sample_of(b"aEND"[:i], sampling=sampling).shown for i in range(5)]
    assert shown == ["", "", "", "a", "a"]


@pytest.mark.parametrize(("end", "reason"), [(EOS, None), (OTHER_END, OTHER_END), (120, 120)])
def test_tokens_that_end_a_text_are_kept_in_the_ids_only(end, reason):
    candidate = sample_of(bytes([97, end, 98]), sampling={"stop_token_ids": [120]}).outcome(256)
    assert (candidate.text, candidate.token_ids) == ("a", (97, end))
    assert (candidate.finish_reason, candidate.stop_reason) == ("stop", reason)


def test_an_ignored_end_of_text_ends_nothing():
    sample = sample_of(bytes([97, EOS, OTHER_END, 98]), room=4, sampling={"ignore_eos": True})
    assert (sample.text, sample.finish_reason) == ("ab", "length")


def test_a_character_comes_with_its_last_byte():
    texts = [sample_of("é€".encode()[:i]).text for i in range(6)]
    assert texts == ["", "", "é", "é", "é", "é€"]


def test_a_boundary_ends_the_sample_also_at_its_last_token():
    sample = sample_of(b"one. two", until=lambda text: text.endswith("."), room=4)
    assert (sample.text, sample.finish_reason) == ("one.", "boundary")


def test_stop_strings_count_from_the_least_tokens_on():
    sampling = {"stop": ["a"], "min_tokens": 2}
    assert sample_of(b"aaab", sampling=sampling).token_ids == [97, 97, 97]


@pytest.mark.parametrize("statistic", ["entropy", "self_certainty"])
def test_an_early_stop_leaves_out_the_token_it_comes_before(statistic):
    """An even distribution has the entropy log V, and the self-certainty 0."""
    above = np.log(256) - 1e-3 if statistic == "entropy" else -1e-3
    candidate = sample_of(b"abcdef", early_stop=EarlyStop(above, 3, statistic)).outcome(256)
    assert (candidate.text, candidate.finish_reason) == ("ab", "early_stop")
    assert len(candidate.trace) == 2
    assert sample_of(b"abcdef", early_stop=EarlyStop(above + 1e-2, 3, statistic)).text == "abcdef"


def test_logits_that_are_not_numbers_are_an_error():
    sample = sample_of(b"a", logits=torch.full((1, 256), torch.nan))
    assert sample.finish_reason == "error"
    assert isinstance(sample.outcome(256), EngineError)


def test_impossible_tokens_leave_the_statistics_finite():
    logits = torch.zeros(1, 256)
    logits[0, 200:] = -torch.inf
    trace = sample_of(b"a", logits=logits).outcome(256).trace
    assert trace.support[0] == 200
    np.testing.assert_allclose(trace.entropy, np.log(200), atol=1e-6)
    np.testing.assert_allclose(trace.mean_logprob, -np.log(200), atol=1e-6)
