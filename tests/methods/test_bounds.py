"""The bounds hold the truth, on random and on adversarial distributions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uq_llm_integrations import TokenTrace
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics
from uq_llm_integrations.methods.bounds import bounded, known_part, power_sum_bounds

ROWS = 60  # distributions in one example; a thousand examples make 60,000


def random_logits(kind: str, rng: np.random.Generator, size: int) -> np.ndarray:
    match kind:
        case "smooth":
            return rng.normal(size=(ROWS, size)) * rng.uniform(0.01, 12)
        case "heavy tail":
            return -np.log(np.arange(1, size + 1)) * rng.uniform(0.1, 3, (ROWS, 1))
        case "one certain":
            return np.where(np.arange(size) == 0, rng.uniform(5, 700, (ROWS, 1)), 0.0)
        case "few equal":
            # As many equal ones as fit the cap exactly: where the lower bound is attained.
            equal = rng.integers(1, size + 1, (ROWS, 1))
            return np.where(np.arange(size) < equal, 0.0, -rng.uniform(20, 1000, (ROWS, 1)))
        case _:
            return rng.normal(size=(ROWS, size)) * np.exp(rng.normal(size=(ROWS, 1)) * 3)


def traces(kind: str, seed: int, size: int, k: int) -> tuple[TokenTrace, dict]:
    """A trace that knows the top k of some distributions, and the exact statistics."""
    rng = np.random.default_rng(seed)
    logits = random_logits(kind, rng, size)
    logprobs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    logprobs = -np.sort(-logprobs, -1)
    # Half of the sampled tokens lie anywhere, half among the most probable.
    anywhere = rng.integers(0, size, ROWS)
    rank = np.where(rng.random(ROWS) < 0.5, anywhere, anywhere % (k + 1)) + 1
    trace = TokenTrace(
        vocabulary_size=size,
        logprob=logprobs[np.arange(ROWS), rank - 1],
        rank=rank,
        top_logprobs=logprobs[:, :k] if k else None,
        why_inexact="only the top k",
    )
    return trace, exact_statistics(dense_rows(logprobs))


kinds = st.sampled_from(["smooth", "heavy tail", "one certain", "few equal", "mixed"])
seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([2, 3, 10, 50, 1000, 5000])


@settings(max_examples=1000)
@given(kind=kinds, seed=seeds, size=sizes, k=st.integers(0, 25))
def test_lower_exact_upper(kind, seed, size, k):
    trace, exact = traces(kind, seed, size, min(k, size - 1))
    found = bounded(trace)
    assert (found.entropy_lower <= exact["entropy"]).all()
    assert (exact["entropy"] <= found.entropy_upper).all()
    assert ((found.missing_mass >= 0) & (found.missing_mass <= 1)).all()


@settings(max_examples=300)
@given(kind=kinds, seed=seeds, size=sizes, k=st.integers(0, 25))
def test_lower_exact_upper_of_the_power_sums(kind, seed, size, k):
    trace, exact = traces(kind, seed, size, min(k, size - 1))
    for exponent, name in ((0.5, "root_sum"), (0.25, "fourth_root_sum")):
        lower, upper = power_sum_bounds(known_part(trace), exponent)
        slack = 1e-12 * exact[name]
        assert (lower <= exact[name] + slack).all()
        assert (exact[name] <= upper + slack).all()


@given(seed=seeds, k=st.integers(1, 20))
def test_knowing_more_never_widens_the_interval(seed, k):
    less, _ = traces("smooth", seed, 200, k)
    more, _ = traces("smooth", seed, 200, k + 5)
    same_tokens = {"logprob": less.logprob, "rank": less.rank}
    more = bounded(TokenTrace(200, top_logprobs=more.top_logprobs, **same_tokens))
    less = bounded(less)
    width = more.entropy_upper - more.entropy_lower
    assert (width <= less.entropy_upper - less.entropy_lower + 1e-9).all()


@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_truth_is_not_the_renormalised_entropy(k):
    """Why nothing is ever renormalised: on a heavy tail it lies outside the interval."""
    size = 49152
    logits = -np.log(np.arange(1, size + 1))
    logprobs = (logits - np.logaddexp.reduce(logits))[None]
    trace = bounded(TokenTrace(size, logprobs[:, 0], np.array([1]), top_logprobs=logprobs[:, :k]))
    top = np.exp(logprobs[0, :k])
    top /= top.sum()
    renormalised = -(top * np.log(top)).sum()
    truth = exact_statistics(dense_rows(logprobs))["entropy"][0]
    assert renormalised < trace.entropy_lower[0] <= truth <= trace.entropy_upper[0]


def test_an_exact_trace_has_an_interval_of_no_width():
    trace = bounded(TokenTrace(10, np.array([-0.1]), entropy=np.array([0.5])))
    assert trace.entropy_lower == trace.entropy_upper == [0.5]
    assert trace.missing_mass == [0.0]
