"""EigenScore gives what lm-polygraph gives, and hidden-state methods say what they lack."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations import (
    ConfigurationError,
    Context,
    EvidenceError,
    Inspection,
    MethodOptions,
    Request,
    ScriptedBackend,
    UncertaintyHead,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.methods.hidden_states import METHODS, eigen_score

CAPABILITIES = ScriptedBackend([]).capabilities
BY_ALIAS = {method.alias: method for method in METHODS}

seeds = st.integers(0, 2**32 - 1)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(seed=seeds, samples=st.integers(2, 8), width=st.integers(2, 64))
def test_eigen_score_equals_lm_polygraphs(estimators, seed, samples, width):
    embeddings = normal(seed, samples, width) * 3
    (expected,) = estimators.EigenScore()({"sample_embeddings": [embeddings]})
    assert eigen_score(embeddings) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(seed=seeds, samples=st.integers(2, 8))
def test_the_order_of_the_samples_means_nothing(seed, samples):
    embeddings = normal(seed, samples, 16)
    assert eigen_score(embeddings[::-1]) == pytest.approx(eigen_score(embeddings))


@given(seed=seeds)
def test_samples_that_differ_score_higher_than_copies(seed):
    embeddings = normal(seed, 5, 16)
    copies = np.repeat(embeddings[:1], 5, 0)
    assert eigen_score(embeddings) > eigen_score(copies)


@pytest.mark.parametrize("embeddings", [np.ones((1, 4)), np.ones(4), np.full((3, 4), np.nan)])
def test_eigen_score_refuses_what_cannot_be_compared(embeddings):
    with pytest.raises(ConfigurationError, match="two samples or more"):
        eigen_score(embeddings)


def density(**known) -> SimpleNamespace:
    return SimpleNamespace(**{"layer": 2, "has_background": False, "has_ranks": False} | known)


@pytest.mark.parametrize(
    ("alias", "options", "words"),
    [
        ("mahalanobis", {}, "a density fitted on training texts"),
        ("rde", {}, "a density fitted on training texts"),
        ("relative_mahalanobis", {}, "a density fitted on training texts"),
        ("relative_mahalanobis", {"density": density()}, "fitted with a background"),
        ("ppl_md", {"density": density()}, "with the perplexities of its texts"),
        ("uhead", {}, "a head fitted on labelled answers"),
        ("claim_uhead", {}, "a head for claims"),
        ("claim_uhead", {"head": UncertaintyHead("any", 1, np.zeros(8), 0.0)}, "a head for claims"),
    ],
)
async def test_a_method_says_what_was_not_fitted_before_and_after_it_is_run(alias, options, words):
    method, options = BY_ALIAS[alias], MethodOptions(**options)
    assert words in method.missing(CAPABILITIES, options)
    backend = MeteredBackend(ScriptedBackend(["Oslo"]))
    candidates = await backend.generate(Request((63,)))
    with pytest.raises(EvidenceError, match=r"fit_|LuhHead"):
        await method.gather(Context(backend, Request((63,)), candidates, options))


@pytest.mark.parametrize("alias", ["mahalanobis", "relative_mahalanobis", "rde", "ppl_md"])
def test_nothing_is_missing_where_all_was_fitted(alias):
    options = MethodOptions(density=density(has_background=True, has_ranks=True))
    assert BY_ALIAS[alias].missing(CAPABILITIES, options) is None
    assert BY_ALIAS[alias].inspection(options) == Inspection((2,))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_all_need_a_backend_that_shows_activations(method):
    capabilities = SimpleNamespace(model="a server", why_no_activations="it is far away")
    assert "it is far away" in method.missing(capabilities)


async def test_what_fails_for_one_candidate_is_no_other_ones_loss():
    class Picky:
        inspection, top_logprobs = Inspection((1,)), 0

        def doubt(self, candidate, seen):
            if candidate.text == "Rome":
                raise ConfigurationError("not Rome")
            return 0.25

    backend, request = MeteredBackend(ScriptedBackend(["Oslo", "Rome"])), Request((63,), 2)
    candidates = await backend.generate(request)
    context = Context(backend, request, candidates, MethodOptions(head=Picky()))
    first, second = await BY_ALIAS["uhead"].gather(context)
    assert first == 0.25
    assert str(second) == "not Rome"
