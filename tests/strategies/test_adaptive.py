"""The rules that end sampling early: the lead of a vote, and the bound on unseen sequences."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from uq_llm_integrations import Candidate, TokenTrace
from uq_llm_integrations.strategies.adaptive import (
    chance_to_stay_ahead,
    hopeless_monitor,
    most_unseen,
)

TOKENS, LENGTH = 3, 3
SEQUENCES = list(itertools.product(range(TOKENS), repeat=LENGTH))


def candidate(language, ids, k=0, reason="length") -> Candidate:
    """Return the sequence as a language gives it, which has a distribution behind each prefix."""
    rows = np.array([language[ids[:index]] for index in range(len(ids))]).reshape(-1, TOKENS)
    order = np.argsort(-rows, axis=1)[:, :k]
    trace = TokenTrace(
        TOKENS,
        np.array([row[token] for row, token in zip(rows, ids, strict=True)]),
        top_ids=order,
        top_logprobs=np.take_along_axis(rows, order, axis=1),
    )
    return Candidate((0,), ids, "", trace, reason)


@st.composite
def languages(draw):
    weights = st.lists(st.floats(0.01, 1.0), min_size=TOKENS, max_size=TOKENS)
    prefixes = [p for n in range(LENGTH) for p in itertools.product(range(TOKENS), repeat=n)]
    found = {prefix: np.array(draw(weights)) for prefix in prefixes}
    return {prefix: np.log(w / w.sum()) for prefix, w in found.items()}


@given(
    languages(), st.sets(st.sampled_from(SEQUENCES), min_size=1), st.integers(0, TOKENS), st.data()
)
def test_no_unseen_sequence_is_more_likely_than_the_bound(language, seen, k, data):
    cut = data.draw(st.sets(st.sampled_from(sorted(seen))))
    candidates = [
        candidate(language, ids[:2], k, "abort") if ids in cut else candidate(language, ids, k)
        for ids in seen
    ]
    unseen = [
        candidate(language, ids).trace.logprob.sum() for ids in SEQUENCES if ids not in seen - cut
    ]
    assert max(unseen, default=-math.inf) <= most_unseen(candidates) + 1e-9


def test_the_bound_is_the_likeliest_way_out_of_the_tree():
    certain, split = np.log([0.98, 0.01, 0.01]), np.log([0.5, 0.3, 0.2])
    language = {(): split, (0,): certain, (0, 0): certain}
    assert most_unseen([candidate(language, (0, 0, 0), k=2)]) == np.log(0.3)
    assert most_unseen([candidate(language, (0, 0, 0), k=0)]) == np.log(0.5)


def test_without_samples_anything_may_be_certain():
    assert most_unseen([]) == 0.0


@given(first=st.integers(0, 60), second=st.integers(0, 60))
def test_the_chance_to_stay_ahead_is_that_of_the_beta_distribution(first, second):
    expected = beta.sf(0.5, first + 1, second + 1)
    assert chance_to_stay_ahead(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-12)


FINISHED = Candidate((0,), (1, 2), "", TokenTrace(TOKENS, np.log([0.5, 0.5])), "stop")


@pytest.mark.parametrize("name", ["perplexity", "mean_nll", "Perplexity"])
def test_a_mean_is_hopeless_once_the_longest_answer_could_not_make_up_for_it(name):
    monitor = hopeless_monitor(name, 4, [FINISHED])
    assert not monitor.hopeless([4 * math.log(0.5) + 0.01], [])
    assert monitor.hopeless([4 * math.log(0.5) - 0.01], [])


def test_a_sum_is_hopeless_once_it_is_above_the_best():
    monitor = hopeless_monitor("maxprob", None, [])
    assert not monitor.hopeless([2 * math.log(0.5) + 0.01], [FINISHED])
    assert monitor.hopeless([2 * math.log(0.5) - 0.01], [FINISHED])


def test_no_bound_is_known_of_other_methods():
    assert hopeless_monitor("entropy", 4, []) is None
    assert hopeless_monitor("perplexity", None, []) is None
