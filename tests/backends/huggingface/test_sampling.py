"""Sampling parameters, and drawing by them."""

import numpy as np
import pytest
import torch

from uq_llm_integrations.backends.huggingface.draw import draw, filtered, penalised
from uq_llm_integrations.backends.huggingface.sampling import HFSampling
from uq_llm_integrations.errors import InvalidRequestError

LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"presence_penalty": 1.0}, "does not draw by presence_penalty; allowed are ignore_eos"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_k": 1.5}, "top_k is 1.5; it must be a whole number"),
        ({"top_k": -2}, "top_k is -2"),
        ({"max_tokens": 2.0}, "max_tokens"),
        ({"seed": "1"}, "seed"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids"),
        ({"min_tokens": 20}, "at most max_tokens, 16"),
    ],
)
def test_values_that_can_never_work_are_refused(sampling, message):
    with pytest.raises(InvalidRequestError, match=message):
        HFSampling.of(sampling)


def test_none_stands_for_the_default_and_one_stop_string_for_a_list():
    assert HFSampling.of({"max_tokens": None, "stop": "a"}) == HFSampling(stop=("a",))


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
    allowed = filtered(shuffled, sampling).isfinite()
    assert allowed.sum() == kept
    assert allowed[0, shuffled[0].argsort(descending=True)[:kept]].all()


def test_tokens_are_drawn_with_their_probabilities():
    rows = LOGITS.expand(20000, -1)
    torch.manual_seed(0)
    counts = np.bincount(draw(rows, HFSampling(), [None] * len(rows)), minlength=4)
    np.testing.assert_allclose(counts / len(rows), LOGITS.exp()[0], atol=0.012)


def test_a_row_with_a_generator_draws_the_same_beside_any_others():
    def drawn(rows: int) -> list[int]:
        generators = [torch.Generator().manual_seed(row) for row in range(rows)]
        return draw(torch.zeros(rows, 1000), HFSampling(), generators).tolist()

    assert drawn(8)[:3] == drawn(3)
    assert len(set(drawn(8))) > 1


def test_the_penalty_makes_seen_tokens_less_probable_on_either_side_of_zero():
    logits = torch.tensor([[2.0, -2.0, 2.0]])
    seen = torch.tensor([[True, True, False]])
    assert penalised(logits, seen, 2.0).tolist() == [[1.0, -4.0, 2.0]]
