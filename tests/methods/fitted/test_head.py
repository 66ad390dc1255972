"""The supervised head separates wrong answers from right ones, and survives being a file."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from uq_llm_integrations import (
    ConfigurationError,
    DensityFit,
    MissingDependencyError,
    UncertaintyHead,
)

ORIGIN = {"model": "smollm2", "layer": 15}

seeds = st.integers(0, 2**32 - 1)


def graded(seed: int, texts: int = 120, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and labels that depend on the first two dimensions."""
    rng = np.random.default_rng(seed)
    embeddings = (rng.normal(size=(texts, width)) * 4 + 7).astype(np.float32)
    is_wrong = embeddings[:, 0] - embeddings[:, 1] + rng.normal(size=texts) > 0
    is_wrong[:2] = True, False
    return embeddings, is_wrong


@settings(max_examples=10)
@given(seed=seeds)
def test_it_is_scikit_learns_logistic_regression(seed):
    embeddings, is_wrong = graded(seed)
    expected = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    expected.fit(embeddings.astype(np.float64), is_wrong)
    head = UncertaintyHead.fit(embeddings, is_wrong, **ORIGIN)
    found = [head.score(embedding) for embedding in embeddings]
    np.testing.assert_allclose(found, expected.predict_proba(embeddings)[:, 1], atol=1e-5)


@pytest.mark.parametrize("width", [8, 400])
def test_unseen_wrong_answers_score_higher(width):
    """With more dimensions than texts too, where they move together as a model's do."""
    hidden, is_wrong = graded(0, 300)
    rng = np.random.default_rng(1)
    embeddings = hidden @ rng.normal(size=(8, width)) + rng.normal(size=(300, width))
    head = UncertaintyHead.fit(embeddings[:200], is_wrong[:200], **ORIGIN)
    scores = np.array([head.score(embedding) for embedding in embeddings[200:]])
    assert ((scores >= 0) & (scores <= 1)).all()
    wrong, right = scores[is_wrong[200:]], scores[~is_wrong[200:]]
    assert (wrong[:, None] > right).mean() > 0.8


@settings(max_examples=10)
@given(seed=seeds)
def test_moving_along_the_weight_raises_the_score(seed):
    embeddings, is_wrong = graded(seed, 40, 60)
    head = UncertaintyHead.fit(embeddings, is_wrong, **ORIGIN)
    step = head.weight / (head.weight @ head.weight)
    scores = [head.score(embeddings.mean(0) + far * step) for far in (-2, -1, 0, 1, 2)]
    assert scores == sorted(scores) and len(set(scores)) == 5


def test_far_away_it_is_certain_without_overflow():
    head = UncertaintyHead.fit(*graded(0), **ORIGIN)
    assert head.score(head.weight * 1e6) == 1.0
    assert head.score(head.weight * -1e6) == 0.0


def test_a_dimension_that_never_changes_does_no_harm():
    embeddings, is_wrong = graded(0)
    embeddings[:, 3] = 2.0
    head = UncertaintyHead.fit(embeddings, is_wrong, **ORIGIN)
    assert head.weight[3] == pytest.approx(0.0, abs=1e-9)


def test_a_saved_and_loaded_head_gives_the_same_scores(tmp_path):
    embeddings, is_wrong = graded(0, 60, 90)
    head = UncertaintyHead.fit(embeddings, is_wrong, **ORIGIN)
    head.save(tmp_path)
    loaded = UncertaintyHead.load(tmp_path, **ORIGIN)
    expected = [head.score(embedding) for embedding in embeddings]
    assert [loaded.score(embedding) for embedding in embeddings] == pytest.approx(expected)


@pytest.mark.parametrize(
    "wrong", [{"model": "qwen", "layer": 15}, {"model": "smollm2", "layer": 3}]
)
def test_another_model_or_layer_is_refused(tmp_path, wrong):
    UncertaintyHead.fit(*graded(0), **ORIGIN).save(tmp_path)
    with pytest.raises(ConfigurationError, match="'smollm2', layer 15; it cannot score model"):
        UncertaintyHead.load(tmp_path, **wrong)


def test_a_head_and_a_density_can_share_a_folder_but_not_a_file(tmp_path):
    embeddings, is_wrong = graded(0)
    UncertaintyHead.fit(embeddings, is_wrong, **ORIGIN).save(tmp_path)
    DensityFit.fit(embeddings[:50], **ORIGIN).save(tmp_path)
    assert UncertaintyHead.load(tmp_path, **ORIGIN).score(embeddings[0]) >= 0
    (tmp_path / "head.json").write_text((tmp_path / "density.json").read_text())
    with pytest.raises(ConfigurationError, match=r"a density fit .* wanted is a head fit"):
        UncertaintyHead.load(tmp_path, **ORIGIN)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(120, bool), "all answers are right"),
        (np.ones(120, bool), "all answers are wrong"),
        (np.ones(119, bool), "one True or False for each of 120"),
        (np.linspace(0, 1, 120), "one True or False"),
    ],
)
def test_labels_it_cannot_learn_from_are_refused(labels, message):
    with pytest.raises(ConfigurationError, match=message):
        UncertaintyHead.fit(graded(0)[0], labels, **ORIGIN)


def test_embeddings_it_cannot_rest_on_are_refused():
    embeddings, is_wrong = graded(0)
    with pytest.raises(ConfigurationError, match="20 texts or more"):
        UncertaintyHead.fit(embeddings[:19], is_wrong[:19], **ORIGIN)
    with pytest.raises(ConfigurationError, match="finite"):
        UncertaintyHead.fit(embeddings * np.nan, is_wrong, **ORIGIN)
    with pytest.raises(ConfigurationError, match="8 numbers"):
        UncertaintyHead.fit(embeddings, is_wrong, **ORIGIN).score(embeddings[0, 1:])


def test_a_missing_scikit_learn_is_named_with_the_extra_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(
        MissingDependencyError, match=r"sklearn .* pip install 'uq-llm-integrations"
    ):
        UncertaintyHead.fit(*graded(0), **ORIGIN)
