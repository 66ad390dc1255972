"""Confidence means what it says on answers that it has not seen."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from tests.calibration.graded_answers import drawn, graded
from uq_llm_integrations import ConfigurationError, Score
from uq_llm_integrations.calibration import (
    IsotonicScaling,
    PlattScaling,
    brier,
    ece,
    fit_confidence,
    scaling_from_dict,
)

KINDS = ["platt", "isotonic"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def _has_both(data) -> bool:
    scores = np.array(data[0], float)
    return len(set(np.array(data[1])[np.isfinite(scores)].tolist())) == 2


mixed = graded(least=2).filter(_has_both)


@every_kind
def test_of_the_answers_at_a_confidence_as_many_are_right(kind):
    scaling = fit_confidence(*drawn(0, 2000), kind)
    scores, right = drawn(1, 5000)
    confidence = scaling.of_all(scores)
    assert ece(confidence, right).value < 0.04
    assert brier(confidence, right).value < 0.9 * right.mean() * (1 - right.mean())


@every_kind
@settings(max_examples=40)
@given(data=mixed)
def test_it_never_rises_with_the_score_and_never_is_certain(kind, data):
    scaling = fit_confidence(*data, kind)
    found = scaling.of_all([*np.linspace(-200, 200, 50), 1e300])
    assert (np.diff(found) <= 1e-12).all()
    assert ((found >= 0) & (found <= 1)).all()
    known = sum(one is not None and one == one for one in data[0])
    at_scores = scaling.of_all(data[0])
    if kind == "isotonic":
        assert np.nanmin(at_scores) >= 1 / (known + 2)
        assert np.nanmax(at_scores) <= (known + 1) / (known + 2)
    assert scaling.questions == known


@every_kind
@settings(max_examples=40)
@given(data=mixed)
def test_it_survives_being_json(kind, data):
    scaling = fit_confidence(*data, kind)
    again = scaling_from_dict(json.loads(json.dumps(scaling.to_dict())))
    assert again == scaling
    np.testing.assert_array_equal(again.of_all(data[0]), scaling.of_all(data[0]))


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_isotonic_is_scikit_learns_between_its_bounds(seed):
    scores, right = drawn(seed, 60)
    scores = np.round(scores, 1)
    expected = IsotonicRegression(increasing=False, out_of_bounds="clip").fit(scores, right)
    found = fit_confidence(scores, right, "isotonic").of_all(scores)
    np.testing.assert_allclose(found, expected.predict(scores).clip(1 / 62, 61 / 62), atol=1e-12)


def test_platt_minimises_the_log_loss_of_his_targets():
    scores, right = drawn(3, 80)
    found = fit_confidence(scores, right)
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))

    def loss(scaling):
        confidence = scaling.of_all(scores)
        return -(target * np.log(confidence) + (1 - target) * np.log(1 - confidence)).mean()

    for slope, intercept in ((0.99, 1), (1.01, 1), (1, 0.98), (1, 1.02)):
        other = PlattScaling(
            found.slope * slope, found.center, found.intercept * intercept, found.questions
        )
        assert loss(other) > loss(found)


def test_separable_answers_do_not_make_it_certain():
    scaling = fit_confidence(range(40), [True] * 20 + [False] * 20)
    assert 0.9 < scaling.of(5) < 1 and 0 < scaling.of(35) < 0.1


@every_kind
def test_a_score_that_is_worse_than_chance_gives_one_confidence_for_all(kind):
    scaling = fit_confidence(np.arange(100), np.arange(100) >= 40, kind)
    assert scaling.of(0) == pytest.approx(scaling.of(99)) == pytest.approx(0.6, abs=0.01)


@every_kind
def test_an_unknown_score_has_no_confidence(kind):
    scores, right = drawn(0, 50)
    whole = fit_confidence(scores, right, kind)
    gaps = fit_confidence([*scores, None, None], [*right, True, False], kind)
    assert gaps == whole
    assert [gaps.of(one) for one in (None, float("nan"), Score("a", reason="none"))] == [None] * 3
    assert np.isnan(gaps.of_all([None, 0.0])).tolist() == [True, False]


@every_kind
@pytest.mark.parametrize(
    ("scores", "right", "message"),
    [
        ([1, 2], [True, True], "all 2 answers with a known score are right"),
        ([1, 2, None], [False, False, True], "all 2 answers with a known score are wrong"),
        ([None], [True], "there are no graded answers with a known score"),
        ([], [], "there are no graded answers with a known score"),
    ],
)
def test_it_takes_right_and_wrong_answers(kind, scores, right, message):
    with pytest.raises(ConfigurationError, match=message):
        fit_confidence(scores, right, kind)


def test_scores_of_any_size_and_scale_do():
    for scale in (1e-200, 1e-9, 1e9, 1e200):
        scores, right = drawn(4, 60)
        expected = fit_confidence(scores, right).of_all(scores)
        found = fit_confidence(scores * scale, right).of_all(scores * scale)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ConfigurationError, match=r"a score is 1e\+300; allowed is at most 1e\+290"):
        fit_confidence([1e300, -1e300], [True, False])


def test_there_are_two_kinds():
    with pytest.raises(ConfigurationError, match="kind is 'beta'; allowed are 'platt' and"):
        fit_confidence([1, 2], [True, False], "beta")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "kind is None; allowed are"),
        (None, "kind is None; allowed are"),
        ({"kind": ["platt"]}, "allowed are 'platt' and 'isotonic'"),
        ({"kind": "platt", "slope": 1.0}, "PlattScaling: center: Field required"),
        (
            {"kind": "platt", "slope": -1.0, "center": 0.0, "intercept": 0.0, "questions": 1},
            "slope is -1.0; allowed is 0 or more",
        ),
        (
            {"kind": "platt", "slope": "1", "center": 0.0, "intercept": 0.0, "questions": 1},
            "slope: Input should be a valid number, not '1'",
        ),
        (
            {"kind": "platt", "slope": float("nan"), "center": 0, "intercept": 0, "questions": 1},
            "not JSON compliant",
        ),
        (
            {"kind": "isotonic", "scores": [1.0, 0.0], "values": [0.5, 0.4], "questions": 2},
            "as many scores, ascending, as values",
        ),
        (
            {"kind": "isotonic", "scores": [0.0, 1.0], "values": [0.4, 0.5], "questions": 2},
            "as many scores, ascending, as values",
        ),
        (
            {"kind": "isotonic", "scores": [0.0], "values": [1.5], "questions": 2},
            "values from 1 down to 0",
        ),
        ({"kind": "isotonic", "scores": [], "values": [], "questions": 2}, "as many scores"),
        (
            {"kind": "isotonic", "scores": [0.0], "values": [0.5], "questions": 2, "more": 1},
            "more: Unexpected keyword argument",
        ),
    ],
)
def test_what_is_no_scaling_is_refused(data, message):
    with pytest.raises(ConfigurationError, match=message):
        scaling_from_dict(data)


def test_knots_are_joined_by_lines():
    scaling = IsotonicScaling((0.0, 2.0), (0.9, 0.1), questions=10)
    assert [scaling.of(one) for one in (-5, 0, 1, 2, 5)] == pytest.approx([0.9, 0.9, 0.5, 0.1, 0.1])


def test_without_its_packages_it_says_what_to_install():
    program = """
import sys
sys.modules["sklearn"] = sys.modules["scipy"] = None
from uq_llm_integrations.calibration import auroc, fit_confidence, fit_threshold
assert auroc([1, 2], [True, False]).value == 1
for fit in (fit_confidence, lambda *data: fit_threshold(*data, risk=0.5)):
    try:
        fit(range(10), [True] * 9 + [False])
    except ImportError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    wanted = "is not installed; run: pip install 'uq-llm-integrations[calibration]'"
    assert done.stdout.decode().splitlines() == [f"sklearn {wanted}", f"scipy {wanted}"]
