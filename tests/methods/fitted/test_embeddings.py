"""Embeddings of an answer from its hidden states."""

import numpy as np
import pytest

from uq_llm_integrations import ConfigurationError
from uq_llm_integrations.methods.fitted.embeddings import mean_embedding, sample_embedding


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_the_last_token_counts_for_nothing():
    """It is never fed back while it is generated, so lm-polygraph has no state of it."""
    hidden = normal(7, 5)
    other = hidden.copy()
    other[-1] = 1e6
    np.testing.assert_array_equal(mean_embedding(hidden), mean_embedding(other))
    np.testing.assert_array_equal(sample_embedding(other), hidden[-2])
    np.testing.assert_allclose(mean_embedding(hidden), hidden[:6].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 5), (7,)])
def test_an_embedding_needs_two_tokens(shape):
    for embed in (mean_embedding, sample_embedding):
        with pytest.raises(ConfigurationError, match="two tokens or more"):
            embed(normal(*shape))
