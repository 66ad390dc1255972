"""Densities give what lm-polygraph's estimators give, before and after they were files."""

import json
import sys
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from uq_llm_integrations import ConfigurationError, DensityFit
from uq_llm_integrations.methods.fitted.density import COMPONENTS
from uq_llm_integrations.methods.fitted.embeddings import MINIMUM_TEXTS
from uq_llm_integrations.methods.fitted.storage import save_fit

WIDTH = 12
TEXTS = 130
ORIGIN = {"model": "smollm2", "layer": 30}

seeds = st.integers(0, 2**32 - 1)


def normal(seed: int, texts: int = TEXTS, width: int = WIDTH) -> np.ndarray:
    """Embeddings [N, D] whose dimensions have different spreads and are mixed."""
    spread = np.linspace(0.3, 3.0, width)
    mixed = np.linalg.qr(np.random.default_rng(5).normal(size=(width, width)))[0]
    rng = np.random.default_rng(seed)
    return ((rng.normal(size=(texts, width)) * spread) @ mixed + 0.5).astype(np.float32)


TRAINING, BACKGROUND, SCORED = normal(0), normal(1) * 2, normal(2, 20)
STATISTICS = {
    "train_embeddings_decoder": TRAINING,
    "background_train_embeddings_decoder": BACKGROUND,
    "embeddings_decoder": SCORED,
}


@pytest.fixture(scope="module")
def fitted() -> DensityFit:
    return DensityFit.fit(TRAINING, BACKGROUND, **ORIGIN)


@pytest.fixture(scope="module")
def loaded(fitted, tmp_path_factory) -> DensityFit:
    folder = tmp_path_factory.mktemp("fit") / "new"
    fitted.save(folder)
    return DensityFit.load(folder, **ORIGIN)


@pytest.mark.parametrize("source", ["fitted", "loaded"])
@pytest.mark.parametrize(
    ("method", "estimator"),
    [
        ("mahalanobis", "MahalanobisDistanceSeq"),
        ("relative_mahalanobis", "RelativeMahalanobisDistanceSeq"),
        ("rde", "RDESeq"),
    ],
)
def test_distances_equal_lm_polygraphs(estimators, source, method, estimator, request):
    with np.errstate(over="ignore"):  # it compares single precision with 1e100
        expected = getattr(estimators, estimator)()(dict(STATISTICS))
    score = getattr(request.getfixturevalue(source), method)
    found = [score(embedding) for embedding in SCORED]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mean_nll", [0.1, 0.5, 2.0])
def test_ranks_equal_lm_polygraphs(estimators, mean_nll):
    mean_nlls = np.random.default_rng(4).exponential(size=TEXTS)
    expected = estimators.PPLMDSeq()(
        {
            **{name: rows for name, rows in STATISTICS.items() if "background" not in name},
            "train_greedy_log_likelihoods": [[-one] for one in mean_nlls],
            "greedy_log_likelihoods": [[-mean_nll]] * len(SCORED),
        }
    )
    fitted = DensityFit.fit(TRAINING, mean_nlls=mean_nlls, robust=False, **ORIGIN)
    found = [fitted.ppl_md(embedding, mean_nll) for embedding in SCORED]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert len(set(found)) > 5


def test_ranks_need_the_log_probabilities_of_the_training_texts(fitted):
    assert not fitted.has_ranks
    with pytest.raises(ConfigurationError, match="mean_nlls"):
        fitted.ppl_md(SCORED[0], 1.0)


def test_centre_and_inverse_covariance_are_lm_polygraphs(estimators, fitted, tmp_path):
    theirs = estimators.MahalanobisDistanceSeq()
    theirs({"train_embeddings_decoder": TRAINING, "embeddings_decoder": SCORED})
    fitted.save(tmp_path)
    arrays = load_file(tmp_path / "density.safetensors")
    np.testing.assert_allclose(arrays["gaussian.centroid"], theirs.centroid.cpu(), rtol=1e-6)
    np.testing.assert_allclose(arrays["gaussian.precision"], theirs.sigma_inv.cpu(), rtol=1e-5)


def test_fewer_texts_than_dimensions_give_lm_polygraphs_distances_too(estimators):
    training, scored = normal(0, 40, 96), normal(1, 10, 96)
    expected = estimators.MahalanobisDistanceSeq()(
        {"train_embeddings_decoder": training, "embeddings_decoder": scored}
    )
    fitted = DensityFit.fit(training, **ORIGIN)
    found = [fitted.mahalanobis(embedding) for embedding in scored]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@settings(max_examples=20)
@given(seed=seeds, texts=st.integers(MINIMUM_TEXTS, 60))
def test_a_saved_and_loaded_fit_gives_the_same_scores(seed, texts):
    """To the last bits, which depend on where in memory an array lies."""
    mean_nlls = np.linspace(0.0, 2.0, texts)
    fitted = DensityFit.fit(normal(seed, texts), BACKGROUND, mean_nlls=mean_nlls, **ORIGIN)
    with TemporaryDirectory() as folder:
        fitted.save(folder)
        loaded = DensityFit.load(folder, **ORIGIN)
    for embedding in SCORED[:3]:
        for method in ("mahalanobis", "relative_mahalanobis"):
            expected = getattr(fitted, method)(embedding)
            assert getattr(loaded, method)(embedding) == pytest.approx(expected, rel=1e-12)
        assert loaded.has_ranks == fitted.has_ranks
        if fitted.has_ranks:
            assert loaded.ppl_md(embedding, 0.7) == fitted.ppl_md(embedding, 0.7)


def test_a_loaded_fit_gives_the_same_robust_scores(fitted, loaded):
    expected = [fitted.rde(embedding) for embedding in SCORED]
    assert [loaded.rde(embedding) for embedding in SCORED] == pytest.approx(expected, rel=1e-11)


@given(seed=seeds)
def test_the_mean_is_nearest_and_distance_grows_away_from_it(fitted, seed):
    mean = TRAINING.mean(0)
    step = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
    distances = [fitted.mahalanobis(mean + far * step) for far in (0, 1, 2, 4)]
    assert distances == sorted(distances)
    assert distances[0] == pytest.approx(0.0, abs=1e-3)


def test_an_embedding_from_elsewhere_is_farther_by_every_distance(fitted):
    for method in ("mahalanobis", "relative_mahalanobis", "rde"):
        near = np.median([getattr(fitted, method)(embedding) for embedding in SCORED])
        assert getattr(fitted, method)(TRAINING.mean(0) + 8) > near


def test_what_was_not_fitted_is_refused_not_guessed():
    fitted = DensityFit.fit(TRAINING[:COMPONENTS], **ORIGIN)
    assert not fitted.has_background
    with pytest.raises(ConfigurationError, match="background"):
        fitted.relative_mahalanobis(SCORED[0])
    with pytest.raises(ConfigurationError, match="more than 100 texts"):
        fitted.rde(SCORED[0])


@pytest.mark.parametrize(
    "wrong", [{"model": "qwen", "layer": 30}, {"model": "smollm2", "layer": 15}]
)
def test_another_model_or_layer_is_refused(fitted, tmp_path, wrong):
    fitted.save(tmp_path)
    with pytest.raises(ConfigurationError) as refusal:
        DensityFit.load(tmp_path, **wrong)
    assert "'smollm2', layer 30" in str(refusal.value)
    assert f"{wrong['model']!r}, layer {wrong['layer']}" in str(refusal.value)


def test_a_layer_can_have_a_name(tmp_path):
    origin = {"model": "smollm2", "layer": "middle"}
    DensityFit.fit(TRAINING[:30], **origin).save(tmp_path)
    assert DensityFit.load(tmp_path, **origin).layer == "middle"


def test_another_format_is_refused(fitted, tmp_path):
    fitted.save(tmp_path)
    description = json.loads((tmp_path / "density.json").read_text())
    (tmp_path / "density.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(ConfigurationError, match=r"format 99; wanted .* format 1"):
        DensityFit.load(tmp_path, **ORIGIN)


def test_damaged_or_missing_files_are_refused(fitted, tmp_path):
    with pytest.raises(ConfigurationError, match="there is no density fit"):
        DensityFit.load(tmp_path, **ORIGIN)
    fitted.save(tmp_path)
    (tmp_path / "density.safetensors").write_bytes(b"cut short")
    with pytest.raises(ConfigurationError, match="damaged"):
        DensityFit.load(tmp_path, **ORIGIN)
    (tmp_path / "density.json").write_text("{")
    with pytest.raises(ConfigurationError, match="there is no density fit"):
        DensityFit.load(tmp_path, **ORIGIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((TRAINING[: MINIMUM_TEXTS - 1],), "20 texts or more"),
        ((TRAINING[0],), "20 texts or more"),
        ((np.ones_like(TRAINING),), "all the same"),
        ((np.where(TRAINING > 2, np.nan, TRAINING),), "finite"),
        ((TRAINING, BACKGROUND[:, 1:]), "11 numbers"),
        ((TRAINING, BACKGROUND[:5]), "20 texts or more"),
    ],
)
def test_a_fit_refuses_what_it_cannot_rest_on(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        DensityFit.fit(*arguments, **ORIGIN)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [(SCORED[0, 1:], "12 numbers"), (SCORED, "12 numbers"), (SCORED[0] * np.inf, "finite")],
)
def test_an_embedding_that_does_not_fit_is_refused(fitted, embedding, message):
    with pytest.raises(ConfigurationError, match=message):
        fitted.mahalanobis(embedding)


def test_a_negative_square_is_refused_not_taken_for_certainty(tmp_path):
    """Rounding can leave the inverse of an almost singular covariance with one."""
    precision = np.diag([1, -1]).astype(np.float32)
    arrays = {"gaussian.centroid": np.zeros(2, np.float32), "gaussian.precision": precision}
    save_fit(tmp_path, "density", arrays, **ORIGIN)
    fitted = DensityFit.load(tmp_path, **ORIGIN)
    with pytest.raises(ConfigurationError, match="too close to singular"):
        fitted.mahalanobis(np.array([0, 1]))


def test_a_fit_needs_no_lm_polygraph(monkeypatch):
    for name in [one for one in sys.modules if one.partition(".")[0] == "lm_polygraph"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_polygraph", None)
    fitted = DensityFit.fit(TRAINING, BACKGROUND, mean_nlls=np.ones(TEXTS), **ORIGIN)
    assert fitted.mahalanobis(SCORED[0]) > 0
    assert np.isfinite(fitted.rde(SCORED[0]))


def test_files_keep_the_names_of_their_arrays(tmp_path):
    DensityFit.fit(TRAINING, mean_nlls=np.ones(TEXTS), robust=False, **ORIGIN).save(tmp_path)
    assert load_file(tmp_path / "density.safetensors").keys() == {
        "gaussian.centroid",
        "gaussian.precision",
        "ranks.distances",
        "ranks.perplexities",
    }
