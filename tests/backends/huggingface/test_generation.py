"""Sampling tokens by the parameters of a request."""

import numpy as np
import pytest
import torch

from uq_llm_integrations.backends.huggingface.generation import (
    filter_logits,
    penalize,
    sample_tokens,
)
from uq_llm_integrations.backends.huggingface.token_sampling import HFSampling

LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (HFSampling(), 4),
        (HFSampling(top_k=2), 2),
        (HFSampling(top_k=-1), 4),
        (HFSampling(top_p=0.79), 2),
        (HFSampling(top_p=0.81), 3),
        (HFSampling(top_p=1e-9), 1),
        (HFSampling(min_p=0.2), 3),
        (HFSampling(top_k=3, top_p=0.5), 1),
    ],
)
def test_filters_leave_the_most_probable_tokens(sampling, kept):
    shuffled = LOGITS[:, [3, 0, 2, 1]]
    allowed = filter_logits(shuffled, sampling).isfinite()
    assert allowed.sum() == kept
    assert allowed[0, shuffled[0].argsort(descending=True)[:kept]].all()


def test_tokens_are_sampled_with_their_probabilities():
    rows = LOGITS.expand(20000, -1)
    torch.manual_seed(0)
    counts = np.bincount(sample_tokens(rows, HFSampling(), [None] * len(rows)), minlength=4)
    np.testing.assert_allclose(counts / len(rows), LOGITS.exp()[0], atol=0.012)


def test_a_row_with_a_generator_gets_the_same_token_beside_any_others():
    def sampled(rows: int) -> list[int]:
        generators = [torch.Generator().manual_seed(row) for row in range(rows)]
        return sample_tokens(torch.zeros(rows, 1000), HFSampling(), generators).tolist()

    assert sampled(8)[:3] == sampled(3)
    assert len(set(sampled(8))) > 1


def test_the_penalty_makes_seen_tokens_less_probable_on_either_side_of_zero():
    logits = torch.tensor([[2.0, -2.0, 2.0]])
    seen = torch.tensor([[True, True, False]])
    assert penalize(logits, seen, 2.0).tolist() == [[1.0, -4.0, 2.0]]
