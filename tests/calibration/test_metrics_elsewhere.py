"""The same numbers as other packages give on the same data."""

import numpy as np
import pytest
from lm_polygraph.ue_metrics import (
    ROCAUC,
    PredictionRejectionArea,
    RiskCoverageCurveAUC,
)
from lm_polygraph.ue_metrics.ece import ECE
from lm_polygraph.ue_metrics.ue_metric import get_random_scores, normalize_metric
from sklearn.metrics import brier_score_loss, roc_auc_score

from tests.calibration.graded_answers import drawn
from uq_llm_integrations.calibration import (
    aurc,
    auroc,
    brier,
    ece,
    prr,
    risk_coverage,
    selective_accuracy,
)

SEEDS = range(5)

# fmt: off
CONFIDENCE = np.array([
    872, 727, 582, 799, 811, 968, 618, 787, 534, 715,
    775, 932, 920, 835, 751, 655, 594, 944, 980, 643,
    859, 739, 823, 847, 884, 546, 896, 606, 908, 667,
    763, 522, 703, 679, 558, 570, 691, 631, 510, 956,
]) / 1000
# fmt: on
RIGHT = np.array(list("1110110101111111011101011010111111101101"), int).astype(bool)
TORCH_UNCERTAINTY = {"AURC": 0.11293521605656166, "RiskAt80Cov": 0.15625}
"""What torch-uncertainty 0.13.0 gives for them (`metrics/classification/risk_coverage.py`)."""
TORCHMETRICS_ECE = 0.1422
"""What torchmetrics' BinaryCalibrationError(n_bins=15, norm="l1") gives."""


@pytest.mark.parametrize("seed", SEEDS)
def test_auroc_is_scikit_learns_and_lm_polygraphs(seed):
    scores, right = drawn(seed, 200)
    scores = np.round(scores, 1)
    found = auroc(scores, right).value
    assert found == pytest.approx(roc_auc_score(~right, scores))
    assert found == pytest.approx(ROCAUC()(scores, ~right))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("max_rejection", [1.0, 0.5])
def test_prr_is_lm_polygraphs_but_for_its_random_baseline(seed, max_rejection):
    scores, right = drawn(seed, 201)
    area, quality = PredictionRejectionArea(max_rejection), right.astype(float)
    found = prr(scores, right, max_rejection).value
    exact = normalize_metric(area(scores, quality), area(-quality, quality), quality.mean())
    assert found == pytest.approx(exact)
    state = np.random.get_state()
    shuffled = normalize_metric(
        area(scores, quality), area(-quality, quality), get_random_scores(area, quality)
    )
    np.random.set_state(state)
    assert found == pytest.approx(shuffled, abs=0.02)


@pytest.mark.parametrize("seed", SEEDS)
def test_prr_of_graded_quality_is_lm_polygraphs(seed):
    rng = np.random.default_rng(seed)
    scores, quality = rng.normal(size=100), rng.random(100)
    area = PredictionRejectionArea(0.5)
    scaled = (quality - quality.min()) / np.ptp(quality)
    exact = normalize_metric(area(scores, quality), area(-quality, quality), scaled.mean())
    assert prr(scores, quality).value == pytest.approx(exact)


@pytest.mark.parametrize("seed", SEEDS)
def test_aurc_is_lm_polygraphs(seed):
    scores, right = drawn(seed, 200)
    assert aurc(scores, right).value == pytest.approx(
        RiskCoverageCurveAUC()(scores, right.astype(float))
    )


def test_the_risk_coverage_curve_is_torch_uncertaintys():
    """Its area is by trapezoids between coverage 1/N and 1, over that width."""
    coverage, risk = risk_coverage(1 - CONFIDENCE, RIGHT)
    area = np.trapezoid(risk, coverage) / (1 - coverage[0])
    assert area == pytest.approx(TORCH_UNCERTAINTY["AURC"], abs=1e-6)
    found = selective_accuracy(1 - CONFIDENCE, RIGHT, 0.8).value
    assert 1 - found == pytest.approx(TORCH_UNCERTAINTY["RiskAt80Cov"])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bins", [1, 10, 20])
def test_ece_is_lm_polygraphs(seed, bins):
    """Who expects confidence in place of uncertainty, negated."""
    rng = np.random.default_rng(seed)
    confidence = np.round(rng.random(100), 2)
    right = rng.random(100) < confidence
    found = ece(confidence, right, bins=bins).value
    assert found == pytest.approx(ECE(n_bins=bins)(-confidence, right))


def test_ece_with_15_bins_is_torchmetrics():
    assert ece(CONFIDENCE, RIGHT).value == pytest.approx(TORCHMETRICS_ECE)


def test_brier_is_scikit_learns():
    assert brier(CONFIDENCE, RIGHT).value == pytest.approx(brier_score_loss(RIGHT, CONFIDENCE))
