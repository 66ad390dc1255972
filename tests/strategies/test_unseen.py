"""The bound on what no sample has shown, against whole small languages."""

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations.records import Candidate, TokenTrace
from uq_llm_integrations.strategies.unseen import most_unseen

TOKENS, LENGTH = 3, 3
SEQUENCES = list(itertools.product(range(TOKENS), repeat=LENGTH))


def candidate(language, ids, k=0, reason="length") -> Candidate:
    """Return the sequence as a language gives it, which has a distribution behind each prefix."""
    rows = np.array([language[ids[:place]] for place in range(len(ids))]).reshape(-1, TOKENS)
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
    drawn = {prefix: np.array(draw(weights)) for prefix in prefixes}
    return {prefix: np.log(w / w.sum()) for prefix, w in drawn.items()}


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
