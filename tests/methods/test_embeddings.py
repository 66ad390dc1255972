"""Embeddings and EigenScore give what lm-polygraph gives."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uq_llm_integrations.methods.embeddings import (
    eigen_score,
    mean_embedding,
    middle_layer,
    sample_embedding,
)

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.polygraph import load_estimator

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_the_last_token_counts_for_nothing():
    """It is never fed back while it is generated, so lm-polygraph has no state of it."""
    hidden = drawn(0, 7, 5)
    other = hidden.copy()
    other[-1] = 1e6
    np.testing.assert_array_equal(mean_embedding(hidden), mean_embedding(other))
    np.testing.assert_array_equal(sample_embedding(other), hidden[-2])
    np.testing.assert_allclose(mean_embedding(hidden), hidden[:6].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 5), (7,)])
def test_an_embedding_needs_two_tokens(shape):
    for embed in (mean_embedding, sample_embedding):
        with pytest.raises(ConfigurationError, match="two tokens or more"):
            embed(drawn(0, *shape))


def test_the_middle_layer():
    assert [middle_layer(layers) for layers in (1, 2, 3, 30)] == [0, 1, 1, 15]


@given(seed=seeds, samples=st.integers(2, 8), width=st.integers(2, 64))
def test_eigen_score_equals_lm_polygraphs(seed, samples, width):
    embeddings = drawn(seed, samples, width) * 3
    (expected,) = load_estimator("eigenscore:EigenScore")({"sample_embeddings": [embeddings]})
    assert eigen_score(embeddings) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(seed=seeds, samples=st.integers(2, 8))
def test_the_order_of_the_samples_means_nothing(seed, samples):
    embeddings = drawn(seed, samples, 16)
    assert eigen_score(embeddings[::-1]) == pytest.approx(eigen_score(embeddings))


@given(seed=seeds)
def test_samples_that_differ_score_higher_than_copies(seed):
    embeddings = drawn(seed, 5, 16)
    copies = np.repeat(embeddings[:1], 5, 0)
    assert eigen_score(embeddings) > eigen_score(copies)


@pytest.mark.parametrize("embeddings", [np.ones((1, 4)), np.ones(4), np.full((3, 4), np.nan)])
def test_eigen_score_refuses_what_cannot_be_compared(embeddings):
    with pytest.raises(ConfigurationError, match="two samples or more"):
        eigen_score(embeddings)


def test_estimators_with_absolute_imports_load_without_the_rest_of_lm_polygraph():
    program = (
        "import sys\n"
        "from uq_llm_integrations.methods.polygraph import load_estimator\n"
        "load_estimator('eigenscore:EigenScore', alpha=0.1)\n"
        "load_estimator('attention_score:AttentionScore', layer=1)\n"
        "assert not any(name.startswith('lm_polygraph') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_each_estimator_is_new_so_that_none_keeps_what_another_saw():
    first = load_estimator("eigenscore:EigenScore", alpha=0.1)
    first({"sample_embeddings": [drawn(0, 3, 8)]})
    second = load_estimator("eigenscore:EigenScore", alpha=0.1)
    assert np.isfinite(second({"sample_embeddings": [drawn(0, 3, 9)]})).all()
