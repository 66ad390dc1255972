"""The tap alone, on a stand-in for vLLM's V1 model runner."""

from types import SimpleNamespace

import numpy as np
import torch

from uq_llm_integrations.backends.row_sums import dense_rows, read_rows
from uq_llm_integrations.backends.vllm import tap as tapping
from uq_llm_integrations.backends.vllm.recorder import Recorder
from uq_llm_integrations.backends.vllm.start import SCORE_KEY

LOGITS = torch.tensor(np.random.default_rng(0).normal(size=(6, 31)), dtype=torch.float32)


def runner_of(**prompts: tuple[int, int, dict]) -> SimpleNamespace:
    """A runner with prompts of so many tokens, of which some are computed already."""
    runner = SimpleNamespace(
        sampler=SimpleNamespace(compute_logprobs=lambda logits: logits.log_softmax(-1)),
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


def test_what_the_sampler_computed_is_handed_on_once():
    tap, runner = tapping.LogprobTap(), runner_of()
    assert tap.attach(runner) and tap.attach(runner)
    computed = runner.sampler.compute_logprobs(LOGITS)
    assert tap.take(LOGITS) is computed
    assert tap.take(LOGITS) is not computed
    torch.testing.assert_close(tap.take(LOGITS[:2]), computed[:2])


def test_prompts_are_kept_from_the_token_that_is_wanted(monkeypatch):
    """One prompt that is not watched, one from its start, and one behind cached tokens."""
    recorder = Recorder()
    monkeypatch.setattr(tapping, "RECORDER", recorder)
    runner = runner_of(
        other=(4, 0, None),
        first=(6, 0, {SCORE_KEY: ("a", 3)}),
        second=(7, 4, {SCORE_KEY: ("b", 6)}),
    )
    assert tapping.LogprobTap().attach(runner)
    runner._get_prompt_logprobs_dict(None, {"other": 4, "first": 6, "second": 3})
    rows = dense_rows(LOGITS.log_softmax(-1).double().numpy())
    first, second = map(read_rows, recorder.take(["a", "b"]))
    np.testing.assert_allclose(first, rows[2:5], atol=1e-5)
    np.testing.assert_allclose(second, rows[1:2], atol=1e-5)


def test_a_runner_of_another_build_is_left_alone():
    assert not tapping.LogprobTap().attach(SimpleNamespace(sampler=SimpleNamespace()))
