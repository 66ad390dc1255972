"""The sums of whole distributions, computed in blocks on their device."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations.backends.device_sums import row_statistics
from uq_llm_integrations.backends.row_sums import dense_rows


def log_probabilities(seed: int, rows: int, size: int, scale: float = 3.0) -> torch.Tensor:
    logits = np.random.default_rng(seed).normal(size=(rows, size)) * scale
    return torch.tensor(logits, dtype=torch.float32).log_softmax(-1)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), scale=st.floats(0.01, 50))
def test_the_sums_equal_those_of_the_whole_distribution(seed, rows, scale):
    logprobs = log_probabilities(seed, rows, 40_000, scale)
    expected = dense_rows(logprobs.double().numpy())
    np.testing.assert_allclose(row_statistics(logprobs), expected, rtol=1e-5, atol=1e-6)


def test_forbidden_tokens_are_left_out():
    logits = log_probabilities(1, 2, 31)
    logits[0, 5:] = -torch.inf
    logprobs = logits.log_softmax(-1)
    found = row_statistics(logprobs, has_forbidden=True)
    np.testing.assert_allclose(found, dense_rows(logprobs.double().numpy()), atol=1e-5)
    assert found[:, 5].tolist() == [5, 31]
