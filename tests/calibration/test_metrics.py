"""What each metric is on answers that can be counted by hand, and what it does not depend on."""

from functools import partial
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.calibration.graded_answers import drawn, graded, known
from uq_llm_integrations import ConfigurationError, Score
from uq_llm_integrations.calibration import (
    Metric,
    aurc,
    auroc,
    eaurc,
    prr,
    risk_coverage,
    selective_accuracy,
)

METRICS = {
    "auroc": auroc,
    "prr": prr,
    "prr@1": partial(prr, max_rejection=1),
    "aurc": aurc,
    "eaurc": eaurc,
    "accuracy": partial(selective_accuracy, coverage=0.5),
}
every_metric = pytest.mark.parametrize("measure", METRICS.values(), ids=METRICS)
BEST = {"auroc": 1, "prr": 1, "prr@1": 1, "eaurc": 0, "accuracy": 1}


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    scores, right = drawn(0, 50)
    pairs = [(wrong > other) for wrong in scores[~right] for other in scores[right]]
    assert auroc(scores, right).value == pytest.approx(np.mean(pairs))


def test_aurc_is_the_mean_error_rate_of_the_most_certain():
    assert aurc([1, 2, 3, 4], [True, False, True, False]).value == pytest.approx(
        (0 + 1 / 2 + 1 / 3 + 2 / 4) / 4
    )


def test_eaurc_is_what_a_perfect_order_would_save():
    perfect = (0 + 0 + 1 / 3 + 2 / 4) / 4
    assert eaurc([1, 2, 3, 4], [True, False, True, False]).value == pytest.approx(
        (0 + 1 / 2 + 1 / 3 + 2 / 4) / 4 - perfect
    )


def test_prr_averages_over_rejecting_from_none_to_half():
    quality = [1, 0, 1, 0]
    reached = (2 / 3 + 2 / 4) / 2
    oracle = (2 / 3 + 2 / 4) / 2
    assert prr([1, 2, 3, 4], quality).value == pytest.approx((reached - 0.5) / (oracle - 0.5))
    reached = (1 + 1 / 2 + 2 / 3 + 2 / 4) / 4
    oracle = (1 + 1 + 2 / 3 + 2 / 4) / 4
    found = prr([1, 2, 3, 4], quality, max_rejection=1).value
    assert found == pytest.approx((reached - 0.5) / (oracle - 0.5))


def test_accuracy_is_of_the_share_that_is_answered():
    right = [True] * 6 + [False] * 4
    found = [selective_accuracy(range(10), right, coverage).value for coverage in (0.3, 0.7, 1)]
    assert found == pytest.approx([1, 6 / 7, 0.6])


def test_the_risk_coverage_curve_ends_with_all_answers():
    coverage, risk = risk_coverage([1, 2, 3], [True, False, False])
    assert coverage == pytest.approx([1 / 3, 2 / 3, 1])
    assert risk == pytest.approx([0, 1 / 2, 2 / 3])


@pytest.mark.parametrize("name", BEST)
def test_a_perfect_score_is_the_best_there_is(name):
    right = np.arange(20) < 12
    assert METRICS[name](np.arange(20), right).value == BEST[name]


@every_metric
@given(data=graded(), order=st.randoms(use_true_random=False))
def test_the_order_of_the_data_does_not_matter(measure, data, order):
    rows = list(range(len(data[0])))
    order.shuffle(rows)
    shuffled = [[part[row] for row in rows] for part in data]
    _assert_same(measure(*shuffled), measure(*data))


@every_metric
@given(data=graded(score=known))
def test_only_the_order_of_the_scores_matters(measure, data):
    scores, right = data
    _, places = np.unique(scores, return_inverse=True)
    _assert_same(measure(np.exp(places / 10), right), measure(scores, right))


@every_metric
@given(data=graded())
def test_an_unknown_score_counts_as_the_most_uncertain(measure, data):
    scores, right = data
    last = [1e9 if one is None or np.isnan(one) else one for one in scores]
    found = measure(scores, right)
    assert found.unknown == last.count(1e9)
    assert found.count == len(scores)
    _assert_same(found, measure(last, right))


@every_metric
def test_ties_are_averaged_over_all_their_orders(measure):
    right = np.array([True, False, True, False, True])
    tied = measure([1, 2, 2, 2, 3], right).value
    middle = [[1, *order, 5] for order in permutations([2, 3, 4])]
    assert tied == pytest.approx(np.mean([measure(scores, right).value for scores in middle]))


@every_metric
@given(data=graded())
def test_values_are_numbers_or_have_a_reason(measure, data):
    found = measure(*data)
    assert (found.value is None) == bool(found.reason)
    assert found.value is None or np.isfinite(found.value)
    assert Metric.from_dict(found.to_dict()) == found


@pytest.mark.parametrize("name", ["auroc", "prr", "eaurc"])
@pytest.mark.parametrize(
    ("right", "why"),
    [([True] * 4, "all 4 answers are right"), ([False] * 4, "all 4 answers are wrong")],
)
def test_one_class_has_no_value(name, right, why):
    found = METRICS[name]([1, 2, 3, 4], right)
    assert (found.value, found.reason) == (None, why)


@every_metric
def test_no_answers_have_no_value(measure):
    assert measure([], []).value is None
    assert measure([], []).reason == "there are no answers"


def test_a_share_that_rejects_nothing_is_said():
    found = prr([1, 2, 3], [True, True, False])
    assert found.reason == "of 3 answers a share of 0.5 is too few to reject"


def test_graded_quality_counts_where_it_can():
    quality = [1.0, 0.6, 0.2]
    assert aurc([1, 2, 3], quality).value == pytest.approx((0 + 0.2 + 0.4) / 3)
    assert prr([1, 2, 3], quality, max_rejection=1).value == pytest.approx(1)
    with pytest.raises(ConfigurationError, match=r"correct\[1\] is 0.6; allowed is True or False"):
        auroc([1, 2, 3], quality)


def test_scores_may_be_records():
    scores = [Score("entropy", 0.1), Score("entropy", reason="it was cut"), Score("entropy", 0.3)]
    found = auroc(scores, [True, False, True])
    assert (found.value, found.unknown) == (1.0, 1)


@pytest.mark.parametrize(
    ("scores", "correct", "message"),
    [
        ([1, 2], [True], "there are 2 scores and 1 in correct"),
        ([1, "2"], [True, False], r"scores\[1\] is '2'; allowed are numbers and None"),
        ([1, 2], [True, None], r"correct\[1\] is nan; allowed is True or False"),
        ([1, 2], [True, 7], r"correct\[1\] is 7.0; allowed is True or False"),
        ({1, 2}, [True, False], "scores is {1, 2}; wanted is one value a question"),
        (np.array([1j, 2]), [True, False], r"scores\[0\] is .*1j.*; allowed are numbers and None"),
        ([1, 1j], [True, False], r"scores\[1\] is 1j; allowed are numbers and None"),
        ([1, [2]], [True, False], r"scores\[1\] is \[2\]; allowed are numbers and None"),
        ([[1, 2]], [True], r"scores\[0\] is \[1, 2\]"),
        (np.ones((2, 2)), [True, False], "scores must be one a question"),
        (3, [True], "scores is 3; wanted is one value a question"),
        ("12", [True, False], "scores is '12'"),
        (np.array(3.0), [True], r"scores must be one a question, not of shape \(\)"),
        ({1: 2}, [True], "scores is {1: 2}"),
        ([1, 10**400], [True, False], r"scores\[1\] is 1000"),
        ([1, 2], [[True], [False]], r"correct\[0\] is \[True\]"),
    ],
)
def test_what_is_no_graded_answer_is_refused(scores, correct, message):
    with pytest.raises(ConfigurationError, match=message):
        auroc(scores, correct)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan"), "0.5", True, None])
def test_a_share_is_above_0_and_at_most_1(share):
    with pytest.raises(
        ConfigurationError, match=r"coverage is .*; allowed is above 0 and at most 1"
    ):
        selective_accuracy([1, 2], [True, False], share)
    with pytest.raises(ConfigurationError, match="max_rejection is"):
        prr([1, 2], [True, False], share)


def _assert_same(one: Metric, other: Metric) -> None:
    assert (one.value is None) == (other.value is None)
    if one.value is not None:
        assert one.value == pytest.approx(other.value, abs=1e-9)
