"""The bands of the maps give what lm-polygraph's estimators give for whole maps."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations import (
    ConfigurationError,
    Context,
    MethodOptions,
    MethodUnavailableError,
    Request,
    ScriptedBackend,
    TokenTrace,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.methods.attention import (
    METHODS,
    attention_score,
    claim_attention_scores,
    csl,
    eliciting_prompt,
    rauq,
)

PROMPT = 4
VOCABULARY = 50

seeds = st.integers(0, 2**32 - 1)
layer_counts = st.integers(3, 12)
token_counts = st.integers(1, 9)


def attention_maps(seed: int, layers: int, heads: int, length: int) -> np.ndarray:
    """[L, H, S, S] rows that sum to 1 and look back only."""
    logits = np.random.default_rng(seed).normal(size=(layers, heads, length, length)) * 2
    weights = np.tril(np.exp(logits))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def attention_to_self(maps: np.ndarray) -> np.ndarray:
    return np.diagonal(maps, axis1=2, axis2=3)


def trace_of(seed: int, tokens: int) -> TokenTrace:
    rng = np.random.default_rng(seed)
    entropy = rng.uniform(0, np.log(VOCABULARY), tokens)
    return TokenTrace(VOCABULARY, -rng.exponential(1.5, tokens), entropy=entropy)


def generated_attention(maps: np.ndarray, tokens: int) -> np.ndarray:
    """lm-polygraph's `attention_all` [L * H, T, T], as its GreedyProbsCalculator fills it.

    The step that gives token j is fed token j - 1, at index P + j - 1, and the last j of its keys
    are kept.
    """
    rows = np.zeros((maps.shape[0] * maps.shape[1], tokens, tokens))
    for j in range(1, tokens):
        keys = maps[:, :, PROMPT + j - 1, : PROMPT + j]
        rows[:, j, :j] = keys[..., -j:].reshape(len(rows), j)
    return rows


@given(
    seed=seeds,
    layers=layer_counts,
    tokens=st.integers(2, 9),
    use_entropy=st.booleans(),
    alpha=st.sampled_from([None, 0.5, 1.0]),
)
def test_rauq_equals_lm_polygraphs(estimators, seed, layers, tokens, use_entropy, alpha):
    maps, trace = attention_maps(seed, layers, 3, PROMPT + tokens), trace_of(seed, tokens)
    estimator = estimators.RAUQ(alpha=alpha, n_layers=layers, n_heads=3, use_entropy=use_entropy)
    (expected,) = estimator(
        {
            "attention_all": [generated_attention(maps, tokens)],
            "greedy_log_likelihoods": [trace.logprob],
            "greedy_log_probs": [np.zeros((tokens, VOCABULARY))],
            "entropy": [trace.entropy],
        }
    )
    found = rauq(trace, attention_to_self(maps), PROMPT, alpha, use_entropy)
    assert found == pytest.approx(expected, abs=1e-9)


def test_rauq_of_one_token_is_its_own_negative_log_probability():
    maps, trace = attention_maps(0, 6, 2, PROMPT + 1), trace_of(0, 1)
    assert rauq(trace, attention_to_self(maps), PROMPT) == pytest.approx(1 - trace.logprob[0])


def test_rauq_serves_models_too_shallow_for_lm_polygraph():
    maps, trace = attention_maps(0, 1, 2, PROMPT + 3), trace_of(0, 3)
    assert np.isfinite(rauq(trace, attention_to_self(maps), PROMPT))


def test_rauq_stays_finite_where_probabilities_are_too_small_for_a_float():
    attention = attention_to_self(attention_maps(0, 6, 2, PROMPT + 3))
    trace = TokenTrace(VOCABULARY, np.array([-900.0, -800.0, -950.0]))
    assert 800 < rauq(trace, attention, PROMPT) < 1000


@given(seed=seeds, tokens=token_counts)
def test_rauq_rises_with_every_tokens_doubt(seed, tokens):
    attention = attention_to_self(attention_maps(seed, 6, 2, PROMPT + tokens))
    trace = trace_of(seed, tokens)
    doubtful = TokenTrace(VOCABULARY, trace.logprob - 0.5)
    assert rauq(doubtful, attention, PROMPT) > rauq(trace, attention, PROMPT)


@given(seed=seeds, layers=layer_counts, tokens=token_counts)
def test_the_order_of_the_heads_means_nothing(seed, layers, tokens):
    attention = attention_to_self(attention_maps(seed, layers, 4, PROMPT + tokens))
    trace = trace_of(seed, tokens)
    turned = attention[:, ::-1]
    assert rauq(trace, turned, PROMPT) == pytest.approx(rauq(trace, attention, PROMPT))
    assert attention_score(turned) == pytest.approx(attention_score(attention))
    of_answer = attention[..., PROMPT:]
    assert csl(trace.logprob, of_answer[:, ::-1]) == pytest.approx(csl(trace.logprob, of_answer))


@pytest.mark.parametrize(("tokens", "length"), [(0, PROMPT), (3, PROMPT + 4)])
def test_rauq_refuses_attention_that_does_not_fit_the_trace(tokens, length):
    with pytest.raises(ConfigurationError, match=f"{tokens} tokens and the attention {length}$"):
        rauq(trace_of(0, tokens), attention_to_self(attention_maps(0, 3, 2, length)), PROMPT)


def test_rauq_refuses_an_alpha_that_is_no_share():
    with pytest.raises(ConfigurationError, match="from 0 to 1"):
        rauq(trace_of(0, 2), attention_to_self(attention_maps(0, 3, 2, PROMPT + 2)), PROMPT, 1.5)


def test_rauq_with_entropy_needs_exact_entropy():
    trace = TokenTrace(VOCABULARY, np.array([-1.0, -2.0]), why_inexact="only the top 5")
    attention = attention_to_self(attention_maps(0, 3, 2, PROMPT + 2))
    with pytest.raises(MethodUnavailableError, match="only the top 5"):
        rauq(trace, attention, PROMPT, use_entropy=True)


@given(seed=seeds, layers=layer_counts, tokens=token_counts, gen_only=st.booleans())
def test_attention_score_equals_lm_polygraphs(estimators, seed, layers, tokens, gen_only):
    maps = attention_maps(seed, layers, 3, PROMPT + tokens)
    estimator = estimators.AttentionScore(layer=layers // 2, gen_only=gen_only)
    (expected,) = estimator(
        {"forwardpass_attention_weights": [maps], "greedy_tokens": [[0] * tokens]}
    )
    attention = attention_to_self(maps)
    found = attention_score(attention[:, :, PROMPT:-1] if gen_only else attention)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_attention_score_of_another_layer():
    attention = attention_to_self(attention_maps(0, 6, 2, 5))
    assert attention_score(attention, 1) == pytest.approx(attention_score(attention[1:2], 0))
    assert attention_score(attention) == attention_score(attention, 3)


@given(seed=seeds, layers=layer_counts, tokens=token_counts)
def test_csl_equals_lm_polygraphs(estimators, seed, layers, tokens):
    """lm-polygraph has one row for each head, and divides it in place."""
    maps, trace = attention_maps(seed, layers, 3, 2 + tokens + 3), trace_of(seed, tokens)
    to_answer = maps[:, :, -1, 2 : 2 + tokens]
    (expected,) = estimators.CSL()(
        {
            "greedy_log_likelihoods": [trace.logprob],
            "attention_weights_eliciting_prompt": [to_answer.reshape(-1, tokens).copy()],
        }
    )
    assert csl(trace.logprob, to_answer) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(seed=seeds, tokens=token_counts)
def test_csl_lies_between_the_surest_and_the_least_sure_token(seed, tokens):
    logprob = trace_of(seed, tokens).logprob
    found = csl(logprob, attention_maps(seed, 3, 2, tokens)[:, :, -1])
    assert -logprob.max() - 1e-9 <= found <= -logprob.min() + 1e-9


def test_csl_refuses_weights_of_other_tokens():
    with pytest.raises(ConfigurationError, match="2 tokens and 3 attentions"):
        csl(np.array([-1.0, -2.0]), np.ones((2, 2, 3), np.float32))


def test_the_score_of_claims_equals_lm_polygraphs(estimators, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 6}')
    maps = attention_maps(0, 6, 3, PROMPT + 7)
    indices = [(0, 1, 2), (5,)]
    claims = [SimpleNamespace(aligned_token_ids=list(one)) for one in indices]
    (expected,) = estimators.AttentionScoreClaim(str(tmp_path))(
        {
            "forwardpass_attention_weights": [maps],
            "greedy_tokens": [[0] * 7],
            "claims": [claims],
        }
    )
    found = claim_attention_scores(attention_to_self(maps)[..., PROMPT:], indices)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_attention_of_0_leaves_a_claim_without_a_finite_score():
    attention = np.zeros((1, 1, 2), np.float32)
    assert claim_attention_scores(attention, [(0,)]).tolist() == [np.inf]


def test_the_eliciting_prompt_is_lm_polygraphs(estimators):
    from lm_polygraph.stat_calculators.attention_eliciting_prompt import (
        AttentionElicitingPromptCalculator,
    )

    theirs = AttentionElicitingPromptCalculator()
    question = "Is {this} a question?"
    assert eliciting_prompt(question) == (theirs.prompt.format(q=question), theirs.suffix_prompt)


async def values_of_scripted(name: str, *answers: str) -> list:
    """The values of a method where each token attends evenly to itself and all before it."""
    backend = MeteredBackend(ScriptedBackend(answers))
    request = Request((63,), len(answers))
    context = Context(backend, request, await backend.generate(request), MethodOptions())
    (method,) = (one for one in METHODS if name in one.names)
    return await method.gather(context)


async def test_attention_score_of_a_prompt_and_each_of_its_answers():
    found = await values_of_scripted("attention_score", "No", "Yes!")
    expected = [np.log([1, 2, 3]).sum(), np.log([1, 2, 3, 4, 5]).sum()]
    assert found == pytest.approx(expected, rel=1e-6)


async def test_each_claims_score_is_that_of_its_own_tokens():
    ((first, second),) = await values_of_scripted("claim_attention_score", "No. Yes.")
    assert first == pytest.approx(np.log([2, 3, 4]).sum(), rel=1e-6)
    assert second == pytest.approx(np.log([6, 7, 8, 9]).sum(), rel=1e-6)


async def test_an_answer_without_claims_has_no_values():
    (found,) = await values_of_scripted("claim_attention_score", " ")
    assert found.shape == (0,)


@pytest.mark.parametrize("name", ["rauq", "csl"])
async def test_methods_weigh_each_candidates_own_log_probabilities(name):
    """Even attention weighs all tokens alike, and RAUQ carries on ever less of them."""
    short, long = await values_of_scripted(name, "No", "Yes, yes")
    if name == "csl":
        assert short == pytest.approx(-np.log(0.9)) and long == pytest.approx(-np.log(0.9))
    else:
        assert 1 < short < long


async def test_csl_reads_the_answers_own_tokens_between_both_texts():
    class Recorder(ScriptedBackend):
        async def inspect_all(self, texts, inspection):
            self.texts = [bytes(text).decode() for text in texts]
            return await super().inspect_all(texts, inspection)

    backend = Recorder(["Oslo"])
    request = Request(tuple(b"Capital?"))
    context = Context(MeteredBackend(backend), request, await backend.generate(request))
    (method,) = (one for one in METHODS if one.name == "CSL")
    await method.gather(context)
    before, after = eliciting_prompt("Capital?")
    assert backend.texts == [f"{before}Oslo{after}"]
