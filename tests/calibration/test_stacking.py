"""Several methods as one, fitted on answers that its confidence and thresholds do not see."""

import json

import numpy as np
import pytest

from tests.calibration.graded_answers import drawn
from uq_llm_integrations import ConfigurationError
from uq_llm_integrations.calibration import (
    Stack,
    StackFit,
    auroc,
    ece,
    fit_stack,
    fit_threshold,
)


def several(seed: int, count: int = 800, gaps: float = 0.0):
    """Two methods that know something each, one that knows nothing, and the grades."""
    rng = np.random.default_rng(seed)
    right = rng.random(count) < 0.6
    scores = {
        "one": rng.normal(size=count) - 1.2 * right,
        "other": 100 * rng.normal(size=count) - 100 * right,
        "noise": rng.normal(size=count),
    }
    scores["one"][rng.random(count) < gaps * (1 + ~right)] = np.nan
    return scores, right


def test_it_is_better_than_each_of_its_methods():
    fit = fit_stack(*several(0))
    scores, right = several(1, 4000)
    alone = [auroc(one, right).value for one in scores.values()]
    assert auroc(fit.stack.scores(scores), right).value > max(alone) + 0.02
    weights = {one.name: one.weight for one in fit.stack.methods}
    assert abs(weights["noise"]) < 0.3 < min(weights["one"], weights["other"])


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_its_confidence_means_what_it_says(kind):
    fit = fit_stack(*several(0, 3000), kind=kind)
    scores, right = several(1, 5000)
    assert ece(fit.confidence.of_all(fit.stack.scores(scores)), right).value < 0.05


def test_its_answers_are_apart_from_those_of_the_confidence():
    scores, right = several(0, 100)
    fit = fit_stack(scores, right, fit_share=0.3)
    assert fit.stack.questions + len(fit.held_out) == 100
    assert fit.stack.questions == pytest.approx(30, abs=1)
    assert right[list(fit.held_out)].mean() == pytest.approx(right.mean(), abs=0.02)
    seen = ~np.isin(range(100), fit.held_out)
    others = {name: np.where(seen, one, 0) for name, one in scores.items()}
    assert fit_stack(others, right, fit_share=0.3).stack == fit.stack
    assert fit_stack(scores, right, fit_share=0.3, seed=1).held_out != fit.held_out


def test_a_threshold_of_it_keeps_its_promise_on_answers_held_out():
    broken = 0
    whole, whole_right = several(99, 5000)
    for seed in range(30):
        scores, right = several(seed, 300)
        fit = fit_stack(scores, right)
        held_out = list(fit.held_out)
        held_scores = fit.stack.scores({name: one[held_out] for name, one in scores.items()})
        threshold = fit_threshold(held_scores, right[held_out], risk=0.2)
        answered = fit.stack.scores(whole) <= (threshold.value or -1)
        broken += answered.any() and not whole_right[answered].mean() >= 0.8
    assert broken <= 6


def test_an_unknown_score_has_a_weight_of_its_own():
    scores, right = several(0, 3000, gaps=0.2)
    fit = fit_stack(scores, right)
    one = fit.stack.methods[0]
    assert one.unknown > 0.2
    known = fit.stack.score({"one": one.center, "other": 0.0, "noise": 0.0})
    unknown = fit.stack.score({"one": None, "other": 0.0, "noise": 0.0})
    assert unknown > known


def test_what_is_unknown_for_the_first_time_makes_the_stack_unknown():
    fit = fit_stack(*several(0))
    scores = {"one": None, "other": 0.0, "noise": 0.0}
    assert fit.stack.score(scores) is None
    assert fit.of(scores) is None


def test_with_no_score_known_it_is_unknown():
    fit = fit_stack(*several(0, gaps=0.2))
    assert fit.of({"one": None, "other": float("nan"), "noise": None}) is None


def test_one_outlier_does_not_decide():
    fit = fit_stack(*several(0))
    scores = {"one": 0.0, "other": 0.0, "noise": 0.0}
    far = fit.stack.score(scores | {"noise": 1e300})
    assert far == pytest.approx(fit.stack.score(scores | {"noise": 20.0}))


def test_a_method_that_says_nothing_has_no_weight():
    scores, right = several(0)
    fit = fit_stack(scores | {"constant": [1.0] * 800, "never": [None] * 800}, right)
    weights = {one.name: one.weight for one in fit.stack.methods}
    assert weights["constant"] == weights["never"] == 0
    found = fit.stack.scores(scores | {"constant": [1.0] * 800, "never": [None] * 800})
    assert np.isfinite(found).all()


def test_it_survives_being_json():
    fit = fit_stack(*several(0, gaps=0.1), kind="isotonic")
    again = StackFit.from_dict(json.loads(json.dumps(fit.to_dict())))
    assert again == fit
    assert Stack.from_dict(fit.stack.to_dict()) == fit.stack
    scores = {"one": 0.3, "other": None, "noise": 1.0}
    assert again.of(scores | {"other": 3.0}) == fit.of(scores | {"other": 3.0})


@pytest.mark.parametrize(
    ("scores", "right", "message"),
    [
        ({}, [True], "scores is empty; wanted are those of one method or more"),
        (
            {"a": [1, 2], "b": [1]},
            [True, False],
            "the methods have different numbers of scores: a 2, b 1",
        ),
        ({"a": [1, 2]}, [True], "there are 2 scores and 1 in correct"),
        ({"a": [1, "x"]}, [True, False], r"a\[1\] is 'x'"),
        ({"a": [1, 2, 3, 4]}, [True] * 4, "all 2 answers with a known score are right"),
        ({"a": [1, 2, 3, 4]}, [True, True, True, False], "are right"),
        ({"a": []}, [], "there are no graded answers"),
    ],
)
def test_what_cannot_be_fitted_is_refused(scores, right, message):
    with pytest.raises(ConfigurationError, match=message):
        fit_stack(scores, right)


def test_all_its_methods_are_needed():
    fit = fit_stack(*several(0))
    with pytest.raises(ConfigurationError, match="there are no scores of 'other', 'noise'"):
        fit.of({"one": 1.0, "more": 2.0})


@pytest.mark.parametrize("share", [0, 1, 1.5, None])
def test_the_share_is_between_0_and_1(share):
    with pytest.raises(ConfigurationError, match="fit_share is "):
        fit_stack(*several(0), fit_share=share)


def test_equal_data_give_equal_stacks():
    assert fit_stack(*several(0)) == fit_stack(*several(0))


def test_one_method_will_do():
    scores, right = drawn(0, 100)
    fit = fit_stack({"entropy": scores}, right)
    ours = auroc(fit.stack.scores({"entropy": scores}), right).value
    assert ours == pytest.approx(auroc(scores, right).value, abs=1e-3)
