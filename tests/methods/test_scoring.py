"""Every method against lm-polygraph's own estimator, and lm-polygraph's traps."""

from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import full_vocabulary
from uq_llm_integrations import METHODS, Candidate, Request, TokenTrace
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics
from uq_llm_integrations.methods.bounds import bounded
from uq_llm_integrations.methods.scoring import score_candidate, score_trace, token_values

OF_THE_TRACE = [name for name, method in METHODS.items() if method.values]
TOKEN_LEVEL = ["TokenEntropy", "MaximumTokenProbability"]
SEQUENCE_LEVEL = [name for name in OF_THE_TRACE if name not in TOKEN_LEVEL]
OF_LOGPROBS = {
    "MeanNegativeLogLikelihood",
    "perplexity",
    "MaximumSequenceProbability",
    "length_adjusted_nll",
}
ESTIMATORS = {
    name: next((other for other in METHODS[name].other_names if other[0].isupper()), name)
    for name in SEQUENCE_LEVEL
    # Which lm-polygraph has not.
    if name not in {"perplexity", "MaximumTokenEntropy", "length_adjusted_nll"}
}
NEGATED = {"RenyiNeg", "FisherRao"}
"""lm-polygraph's grow as the model gets surer."""


@pytest.fixture(scope="module")
def generated(backend, capital_ids) -> Candidate:
    """A sampled text of the real model with all log-probabilities of every token."""
    sampling = {"temperature": 1.0, "seed": 11, "max_tokens": 12}
    request = Request(capital_ids, top_logprobs=-1, sampling=sampling)
    (candidate,) = backend.run(backend.generate(request))
    trace = replace(candidate.trace, top_logprobs=full_vocabulary(candidate.trace))
    return replace(candidate, trace=trace)


def polygraph_stats(candidate: Candidate) -> dict:
    """lm-polygraph's statistics, by its own calculator, of all log-probabilities."""
    from lm_polygraph.stat_calculators.entropy import EntropyCalculator

    trace = candidate.trace
    stats = {
        "greedy_log_probs": [trace.top_logprobs],
        "greedy_log_likelihoods": [trace.logprob],
    }
    return stats | EntropyCalculator()(stats, None, None, 0)


def without_distributions(trace: TokenTrace) -> TokenTrace:
    """The trace as it is when only the probe has seen the distributions."""
    return replace(trace, top_ids=None, top_logprobs=None)


@pytest.mark.engine
@pytest.mark.parametrize("name", ESTIMATORS)
def test_sequence_scores_equal_lm_polygraphs(name, generated, estimators):
    (expected,) = getattr(estimators, ESTIMATORS[name])()(polygraph_stats(generated))
    score = score_trace(without_distributions(generated.trace), METHODS[name])
    assert score.value == pytest.approx(-expected if name in NEGATED else expected, abs=1e-6)


@pytest.mark.engine
@pytest.mark.parametrize("name", TOKEN_LEVEL)
def test_token_scores_equal_lm_polygraphs_and_keep_the_last_token(name, generated, estimators):
    (expected,) = getattr(estimators, name)()(polygraph_stats(generated))
    score = score_trace(without_distributions(generated.trace), METHODS[name])
    assert len(score.tokens) == len(generated.token_ids) == len(expected) + 1
    np.testing.assert_allclose(score.tokens[:-1], expected, rtol=0, atol=1e-6)


@pytest.mark.engine
@pytest.mark.parametrize("name", SEQUENCE_LEVEL)
def test_whole_distributions_and_the_probes_sums_give_the_same(name, generated):
    dense = score_trace(generated.trace, METHODS[name])
    sums = score_trace(without_distributions(generated.trace), METHODS[name])
    assert dense.value == pytest.approx(sums.value, abs=1e-6)


def trace_of(logits: np.ndarray, k: int | None = None) -> TokenTrace:
    """The trace of greedy tokens, exact or with the top k only."""
    logprobs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    logprobs = -np.sort(-logprobs, -1)
    size = logprobs.shape[1]
    rank = np.ones(len(logprobs), np.int64)
    if k is None:
        exact = exact_statistics(dense_rows(logprobs))
        return bounded(TokenTrace(size, logprobs[:, 0], rank, **exact))
    return bounded(
        TokenTrace(
            size, logprobs[:, 0], rank, top_logprobs=logprobs[:, :k], why_inexact="only the top k"
        )
    )


@pytest.mark.parametrize("name", SEQUENCE_LEVEL)
def test_higher_is_more_uncertain(name):
    """Flattening a distribution must raise every score."""
    logits = np.random.default_rng(0).normal(size=(5, 100)) * 4
    values = [
        score_trace(trace_of(logits / flatter), METHODS[name]).value for flatter in (0.5, 1, 2, 8)
    ]
    assert values == sorted(values)
    assert len(set(values)) == 4


@pytest.mark.parametrize("name", SEQUENCE_LEVEL)
def test_the_top_k_give_an_interval_that_holds_the_exact_score(name):
    logits = np.random.default_rng(1).normal(size=(7, 300)) * 3
    exact = score_trace(trace_of(logits), METHODS[name])
    score = score_trace(trace_of(logits, k=20), METHODS[name])
    if name in OF_LOGPROBS:
        assert score.value == pytest.approx(exact.value)
    elif name == "SelfCertainty":
        assert score.value is None and "no bound" in score.reason
    else:
        assert score.value is None and "only the top k" in score.reason
        assert score.lower <= exact.value <= score.upper


@pytest.mark.parametrize("name", OF_THE_TRACE)
def test_an_empty_text_has_a_reason_not_a_zero(name):
    score = score_trace(trace_of(np.zeros((0, 10))), METHODS[name])
    assert not score.is_known
    assert "no tokens" in score.reason


@pytest.mark.parametrize("name", OF_THE_TRACE)
def test_a_broken_distribution_has_a_reason_not_a_nan(name):
    trace = trace_of(np.zeros((3, 10)))
    broken = {
        field: np.full(3, np.nan)
        for field in ("logprob", "entropy", "mean_logprob", "root_sum", "fourth_root_sum")
    }
    score = score_trace(bounded(replace(trace, **broken)), METHODS[name])
    assert not score.is_known
    assert "not finite" in score.reason


def test_scores_are_labelled_as_they_were_requested():
    candidate = Candidate((1,), (2,), "x", trace_of(np.zeros((1, 10))))
    scores = score_candidate(candidate, ["entropy", "MeanTokenEntropy"])
    assert list(scores) == ["entropy", "MeanTokenEntropy"]
    assert scores["entropy"].value == pytest.approx(np.log(10))


def test_perplexity_is_one_for_a_certain_text_and_v_for_a_uniform_one():
    certain = TokenTrace(10, np.zeros(3))
    uniform = TokenTrace(10, np.full(3, -np.log(10)))
    assert score_trace(certain, METHODS["perplexity"]).value == pytest.approx(1.0)
    assert score_trace(uniform, METHODS["perplexity"]).value == pytest.approx(10.0)


def test_a_perplexity_too_large_for_a_float_has_a_reason():
    score = score_trace(TokenTrace(10, np.full(2, -1000.0)), METHODS["perplexity"])
    assert not score.is_known and "not finite" in score.reason


def test_the_highest_entropy_is_that_of_the_least_certain_token():
    logits = np.array([[9.0, 0, 0], [0, 0, 0], [5, 0, 0]])
    score = score_trace(trace_of(logits), METHODS["MaximumTokenEntropy"])
    assert score.value == pytest.approx(np.log(3))


@pytest.mark.parametrize("name", OF_THE_TRACE)
def test_values_of_tokens_enclose_the_exact_ones(name):
    logits = np.random.default_rng(2).normal(size=(6, 200)) * 3
    exact, other = token_values(trace_of(logits), METHODS[name])
    np.testing.assert_array_equal(exact, other)
    ends = token_values(trace_of(logits, k=10), METHODS[name])
    if ends is None:
        assert name == "SelfCertainty"
    else:
        assert (ends[0] <= exact + 1e-12).all() and (exact <= ends[1] + 1e-12).all()


@pytest.mark.parametrize("name", SEQUENCE_LEVEL)
def test_whole_distributions_imply_the_sums(name):
    """A trace that has all V log-probabilities and no sums has the same scores."""
    logits = np.random.default_rng(3).normal(size=(4, 30))
    exact = score_trace(trace_of(logits), METHODS[name]).value
    dense = replace(trace_of(logits, k=30), entropy_lower=None, entropy_upper=None)
    assert score_trace(dense, METHODS[name]).value == pytest.approx(exact, abs=1e-12)
