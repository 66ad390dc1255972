"""The tap alone, on a stand-in for vLLM's V1 model runner."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from uq_llm_integrations.backends.token_statistics import SUMS, column, dense_rows, read_rows
from uq_llm_integrations.backends.vllm.worker import extension as probing
from uq_llm_integrations.backends.vllm.worker.protocol import SCORE_KEY
from uq_llm_integrations.backends.vllm.worker.recorder import Recorder

LOGITS = torch.tensor(np.random.default_rng(0).normal(size=(6, 31)), dtype=torch.float32)

SAMPLED = [3, 1, 4, 1, 5, 9]


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(probing, "RECORDER", recorder)
    return recorder


def runner_of(**prompts: tuple[int, int, dict]) -> SimpleNamespace:
    """A runner with prompts of so many tokens, of which some are computed already."""
    runner = SimpleNamespace(
        sampler=SimpleNamespace(
            compute_logprobs=lambda logits: logits.log_softmax(-1),
            apply_logits_processors=lambda logits, *_: logits.fill_(0.0),
            sample=lambda logits, tokens: (torch.tensor(tokens, dtype=torch.int32), None),
        ),
        num_prompt_logprobs=dict.fromkeys(prompts, 0),
        requests={
            name: SimpleNamespace(
                prompt_token_ids=list(range(length)),
                num_computed_tokens=computed,
                sampling_params=SimpleNamespace(extra_args=extra),
            )
            for name, (length, computed, extra) in prompts.items()
        },
    )

    def score(hidden_states, scheduled):
        for name, (length, computed, _) in prompts.items():
            rows = min(scheduled[name], length - computed - 1)
            if rows > 0:
                runner.sampler.compute_logprobs(LOGITS[:rows])

    runner._get_prompt_logprobs_dict = score
    return runner


def tap_of(see=lambda logits: None) -> probing.SamplerTap:
    tap = probing.SamplerTap()
    tap.see = see
    return tap


def test_logits_are_seen_before_anything_changes_them():
    seen = []
    tap, runner = tap_of(lambda logits: seen.append(logits.clone())), runner_of()
    assert tap.attach(runner) and tap.attach(runner)
    assert not runner.sampler.apply_logits_processors(LOGITS.clone(), None, False).any()
    assert len(seen) == 1 and torch.equal(seen[0], LOGITS)


@pytest.mark.parametrize("indices", [(2, 5), tuple(range(6))])
def test_tokens_are_kept_as_they_are_sampled(recorder, indices):
    """Of some rows or of all, though the logits change; the next step is not kept."""
    runner, logits = runner_of(), LOGITS.clone()
    assert tap_of().attach(runner)
    rows = [(row, f"request {row}", 0) for row in indices]
    recorder.observe(logits, rows, has_forbidden=False, keeps_tokens=True)
    logits.zero_()
    for tokens in (SAMPLED, SAMPLED[::-1]):
        sampled, _ = runner.sampler.sample(logits, tokens)
        assert sampled.tolist() == tokens
    logprobs = LOGITS.double().log_softmax(-1)
    for data, (row, _, _) in zip(recorder.take([name for _, name, _ in rows]), rows, strict=True):
        found, of_token = read_rows(data), logprobs[row, SAMPLED[row]]
        assert column(found, "token") == SAMPLED[row]
        np.testing.assert_allclose(column(found, "logprob"), of_token, rtol=1e-6)
        assert column(found, "rank") == int((logprobs[row] >= of_token).sum())


def test_prompts_are_kept_from_the_first_token_to_be_scored(recorder):
    """One prompt that is not scored, one from its start, and one behind cached tokens."""
    runner = runner_of(
        other=(4, 0, None),
        first=(6, 0, {SCORE_KEY: ("a", 3)}),
        second=(7, 4, {SCORE_KEY: ("b", 6)}),
    )
    assert tap_of().attach(runner)
    runner._get_prompt_logprobs_dict(None, {"other": 4, "first": 6, "second": 3})
    rows = dense_rows(LOGITS.log_softmax(-1).double().numpy())
    first, second = map(read_rows, recorder.take(["a", "b"]))
    np.testing.assert_allclose(first[:, : len(SUMS)], rows[2:5], atol=1e-5)
    np.testing.assert_allclose(second[:, : len(SUMS)], rows[1:2], atol=1e-5)
    assert np.isnan(column(first, "logprob")).all()


def test_a_runner_of_another_build_is_left_alone():
    assert not tap_of().attach(SimpleNamespace(sampler=SimpleNamespace()))


def test_without_a_probe_that_looks_nothing_is_attached():
    assert not probing.SamplerTap().attach(runner_of())
