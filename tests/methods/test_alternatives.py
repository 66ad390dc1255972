"""Boosted probabilities against the package that lm-polygraph takes them from, and CCP."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uq_llm_integrations import TokenTrace
from uq_llm_integrations.methods.alternatives import boosted_probabilities, log_ccp

TOKENS, VOCABULARY = 6, 60

seeds = st.integers(0, 2**32 - 1)


def sampled(seed: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [T, V], and tokens sampled from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(TOKENS, VOCABULARY)) * sharpness
    logprobs = logits - np.logaddexp.reduce(logits, 1, keepdims=True)
    return logprobs, np.array([rng.choice(VOCABULARY, p=np.exp(row)) for row in logprobs])


def trace(logprobs: np.ndarray, ids: np.ndarray, k: int = VOCABULARY) -> TokenTrace:
    """What is known of them when the top k are, most probable first; all V go by id."""
    order = np.argsort(-logprobs, 1)[:, :k]
    order = np.sort(order, 1) if k == VOCABULARY else order
    return TokenTrace(
        VOCABULARY,
        logprob=logprobs[np.arange(TOKENS), ids],
        top_ids=order,
        top_logprobs=np.take_along_axis(logprobs, order, 1),
    )


@settings(max_examples=40)
@given(seed=seeds, sharpness=st.sampled_from([0.3, 2.0, 4.0, 8.0]), k=st.sampled_from([3, 20, 60]))
def test_boosted_probabilities_are_those_of_the_package_or_unknown(seed, sharpness, k):
    import torch
    from boostedprob import calculate_boostedprob

    logprobs, ids = sampled(seed, sharpness)
    expected = calculate_boostedprob(torch.tensor(logprobs), torch.tensor(ids)).numpy()
    found = boosted_probabilities(trace(logprobs, ids, k), ids)
    smallest = np.sort(np.exp(logprobs), 1)[:, -k]
    assert (found is None) == (k < VOCABULARY and smallest.max() > 0.005)
    if found is not None:
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_without_top_log_probabilities_nothing_is_known():
    assert boosted_probabilities(TokenTrace(9, np.zeros(2)), [1, 2]) is None


def test_ccp_is_the_share_of_what_means_the_same():
    """0.6 for the token, 0.2 that means the same, 0.1 the opposite, and 0.1 that is neither."""
    probabilities = [0.6, 0.2, 0.1, 0.1]
    token = [(i, float(np.log(p))) for i, p in enumerate(probabilities)]
    first = ["entail", "entail", "contra", "neutral"]
    matrix = [first, *[[word, None, None, None] for word in first[1:]]]
    found = log_ccp([token, token[:1]], [matrix, [["entail"]]])
    assert np.exp(found) == pytest.approx([0.8 / 0.9, 1.0])
