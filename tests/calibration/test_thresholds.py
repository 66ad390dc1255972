"""Thresholds: what they are, what they do not depend on, and when there is none."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from tests.calibration.graded_answers import drawn, graded, known
from uq_llm_integrations import ConfigurationError, Score
from uq_llm_integrations.calibration import (
    GroupThresholds,
    Guarantee,
    Threshold,
    answers_needed,
    fit_group_thresholds,
    fit_threshold,
)

AMONG = ["answered", "all"]
either = pytest.mark.parametrize("among", AMONG)
risks = st.floats(0.01, 0.9)


def test_as_many_right_answers_are_needed_as_the_binomial_says():
    for risk in (0.01, 0.05, 0.1, 0.3):
        needed = answers_needed(risk, 0.05)
        assert (1 - risk) ** needed <= 0.05 < (1 - risk) ** (needed - 1)
        assert fit_threshold(range(needed), [True] * needed, risk=risk).value == needed - 1
        assert fit_threshold(range(needed - 1), [True] * (needed - 1), risk=risk).value is None


def test_conformal_risk_control_counts_one_more_wrong_answer():
    """(wrong + 1) / (n + 1) <= risk, so that two of 29 may be wrong at 10%."""
    right = [True] * 10 + [False] * 19
    found = fit_threshold(range(29), right, risk=0.1, among="all")
    assert (found.value, found.answered, found.wrong) == (11, 12, 2)
    assert fit_threshold(range(9), [True] * 9, risk=0.1, among="all").value == 8
    assert fit_threshold(range(8), [True] * 8, risk=0.1, among="all").value is None


@settings(max_examples=100)
@given(data=graded(most=60), risk=risks, delta=st.floats(0.01, 0.5))
def test_it_is_the_fallback_procedure_written_out(data, risk, delta):
    found = fit_threshold(*data, risk=risk, delta=delta)
    assert found.value == fallback(*data, risk, delta)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("digits", [0, 1, 9])
def test_with_several_starts_too(seed, digits):
    scores, right = drawn(seed, 1000, wrong=0.35, separation=1.5 + seed / 4)
    scores = np.round(scores, digits)
    found = fit_threshold(scores, right, risk=0.1)
    assert found.value == fallback(scores, right, 0.1, 0.05)


def fallback(scores, right, risk, delta):
    """The highest threshold that passes, by loops over all answers."""
    pairs = sorted(
        (score, grade)
        for score, grade in zip(scores, right, strict=True)
        if score is not None and np.isfinite(score)
    )
    needed = answers_needed(risk, delta)
    starts = [max(-(-len(pairs) // 2), needed)]
    if starts[0] > len(pairs):
        return None
    while len(pairs) / 2 ** (len(starts) + 1) >= 2 * needed:
        starts.append(int(np.ceil(len(pairs) / 2 ** (len(starts) + 1))))
    passed, level, before = None, 0.0, 0
    for value in sorted({score for score, _ in pairs}):
        below = [grade for score, grade in pairs if score <= value]
        level += delta / len(starts) * sum(before < start <= len(below) for start in starts)
        before = len(below)
        if level and binom.cdf(below.count(False), len(below), risk) <= level:
            passed = value
        else:
            level = 0.0
    return passed


@either
@given(data=graded(most=60), risk=risks, order=st.randoms(use_true_random=False))
def test_the_order_of_the_data_does_not_matter(among, data, risk, order):
    rows = list(range(len(data[0])))
    order.shuffle(rows)
    shuffled = [[part[row] for row in rows] for part in data]
    options = {"risk": risk, "among": among}
    assert fit_threshold(*shuffled, **options) == fit_threshold(*data, **options)


@either
@given(data=graded(most=60, score=known), risk=risks)
def test_only_the_order_of_the_scores_matters(among, data, risk):
    scores, right = data
    values, places = np.unique(scores, return_inverse=True)
    found = fit_threshold(scores, right, risk=risk, among=among)
    mapped = fit_threshold(np.exp(places / 10), right, risk=risk, among=among)
    assert found.answered == mapped.answered
    assert [found.accepts(one) for one in values] == [
        mapped.accepts(one) for one in np.exp(np.arange(len(values)) / 10)
    ]


@either
@given(data=graded(most=60), risk=risks)
def test_it_has_a_value_or_says_why_and_survives_being_json(among, data, risk):
    found = fit_threshold(*data, risk=risk, among=among)
    assert (found.value is None) == bool(found.reason)
    assert found.questions == len(data[0])
    accepted = [found.accepts(one) for one in data[0]]
    assert sum(accepted) == found.answered
    wrong = sum(yes and not right for yes, right in zip(accepted, data[1], strict=True))
    assert wrong == found.wrong
    assert Threshold.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@either
@given(data=graded(most=60), risk=st.floats(0.01, 0.2))
def test_the_best_that_can_be_is_the_lowest_risk_with_a_threshold(among, data, risk):
    found = fit_threshold(*data, risk=risk, among=among)
    if found.best is None:
        return
    assert found.value is None and risk < found.best
    assert fit_threshold(*data, risk=found.best, among=among).value is not None
    assert f"the best that can is at most {100 * found.best:.4g}%" in found.reason
    lower = found.best - 0.001
    if lower > 0:
        assert fit_threshold(*data, risk=lower, among=among).value is None


@either
@given(data=graded(most=60), risk=risks)
def test_wrong_answers_do_not_help(among, data, risk):
    """Where fewer answers are right, no more are given."""
    scores, right = data
    worse = [one and place % 3 for place, one in enumerate(right)]
    before = fit_threshold(scores, right, risk=risk, among=among)
    after = fit_threshold(scores, [bool(one) for one in worse], risk=risk, among=among)
    assert after.answered <= before.answered


@pytest.mark.parametrize(
    ("scores", "right", "among", "reason"),
    [
        (
            [],
            [],
            "answered",
            "at most 5% of the answers wrong, with 95% probability cannot be promised with this "
            "data; the best that can is nothing: no question is graded",
        ),
        ([None, float("nan")], [True, False], "all", "no graded question has a known score"),
        (
            range(12),
            [True] * 12,
            "answered",
            "the best that can is at most 22.1%: 5% takes 59 answers with a known score at least, "
            "all of them right, and there are 12",
        ),
        (
            range(12),
            [True] * 12,
            "all",
            "at most 5% of all questions answered wrongly, on average cannot be promised with this "
            "data; the best that can is at most 7.7%: 5% takes 19 graded questions at least, and "
            "there are 12",
        ),
        (
            range(200),
            [False] * 50 + [True] * 150,
            "answered",
            "the answers that the score is most certain of are wrong",
        ),
        ([1.0] * 40, [False] * 40, "all", "the best that can is nothing: too many of the answers"),
    ],
)
def test_without_a_threshold_it_says_why(scores, right, among, reason):
    found = fit_threshold(scores, right, risk=0.05, among=among)
    assert found.value is None and reason in found.reason
    assert not found.accepts(-1e9)
    assert found.coverage == 0


def test_an_unknown_score_is_never_answered():
    found = fit_threshold(range(100), [True] * 100, risk=0.1)
    unknown = [None, float("nan"), float("-inf"), Score("entropy", reason="it was cut")]
    assert [found.accepts(one) for one in unknown] == [False] * 4
    assert found.accepts(Score("entropy", 99.0)) and not found.accepts(99.1)


@pytest.mark.parametrize("score", ["1.0", [1.0], 1j])
def test_what_is_no_score_is_neither_answered_nor_not(score):
    with pytest.raises(ConfigurationError, match=r"score\[0\] is .*; allowed are numbers and None"):
        fit_threshold(range(100), [True] * 100, risk=0.1).accepts(score)


def test_unknown_scores_count_as_questions_that_are_not_answered():
    scores, right = [*range(30), *[None] * 30], [True] * 30 + [False] * 30
    found = fit_threshold(scores, right, risk=0.1)
    assert (found.answered, found.unknown, found.coverage) == (30, 30, 0.5)


@pytest.mark.parametrize("value", [0, 1, -0.1, 2, float("nan"), True, "0.1", None])
def test_risk_and_delta_are_between_0_and_1(value):
    with pytest.raises(ConfigurationError, match=r"risk is .*; allowed is above 0 and below 1"):
        fit_threshold([1], [True], risk=value)
    with pytest.raises(ConfigurationError, match=r"delta is .*; allowed is above 0 and below 1"):
        fit_threshold([1], [True], risk=0.1, delta=value)
    with pytest.raises(ConfigurationError, match="delta is "):
        fit_group_thresholds([1], [True], ["a"], risk=0.1, delta=value)


@either
def test_a_risk_that_nobody_could_show_is_refused(among):
    with pytest.raises(ConfigurationError, match="risk is 1e-300; allowed is 1e-09 at least"):
        fit_threshold([1], [True], risk=1e-300, among=among)


def test_among_is_one_of_two():
    with pytest.raises(
        ConfigurationError, match="among is 'most'; allowed are 'answered' and 'all'"
    ):
        fit_threshold([1], [True], risk=0.1, among="most")


def test_grades_are_right_or_wrong():
    with pytest.raises(ConfigurationError, match=r"correct\[0\] is 0.5; allowed is True or False"):
        fit_threshold([1], [0.5], risk=0.1)


def test_a_guarantee_says_what_it_is():
    assert str(Guarantee(0.1)) == "at most 10% of the answers wrong, with 95% probability"
    assert str(Guarantee(0.025, "all", None)) == (
        "at most 2.5% of all questions answered wrongly, on average"
    )
    with pytest.raises(ConfigurationError, match=r"delta is 0.05; among 'all' it must be None"):
        Guarantee(0.1, "all", 0.05)
    with pytest.raises(ConfigurationError, match="delta is "):
        Guarantee(0.1, "answered", None)


class TestGroups:
    scores = np.tile(np.arange(100) / 100, 2)
    groups = np.repeat(["easy", "hard"], 100)
    right = np.where(groups == "easy", scores < 0.9, scores < 0.5)

    def test_each_group_has_a_threshold_of_its_own(self):
        fitted = fit_group_thresholds(self.scores, self.right, self.groups, risk=0.1)
        for name in ("easy", "hard"):
            of_group = self.groups == name
            alone = fit_threshold(self.scores[of_group], self.right[of_group], risk=0.1)
            assert fitted.threshold(name) == alone
        assert fitted.threshold("hard").value < 0.55 < fitted.threshold("easy").value
        assert fitted.accepts(0.6, "easy") and not fitted.accepts(0.6, "hard")
        assert GroupThresholds.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted

    def test_a_group_that_nobody_graded_is_not_answered(self):
        fitted = fit_group_thresholds(self.scores, self.right, self.groups, risk=0.1)
        assert not fitted.accepts(0.0, "new")
        assert "there are no graded questions of group 'new'" in fitted.threshold("new").reason

    def test_a_group_that_is_too_small_has_none(self):
        groups = ["rare"] * 5 + ["common"] * 195
        fitted = fit_group_thresholds(np.arange(200), np.arange(200) < 190, groups, risk=0.1)
        assert fitted.threshold("rare").value is None
        assert "and there are 5" in fitted.threshold("rare").reason
        assert fitted.threshold("common").value is not None

    def test_the_probability_can_hold_for_all_at_once(self):
        each, both = (
            fit_group_thresholds(
                self.scores, self.right, self.groups, risk=0.1, simultaneous=simultaneous
            )
            for simultaneous in (False, True)
        )
        assert both.threshold("easy").guarantee.delta == 0.025
        assert both.threshold("easy").answered <= each.threshold("easy").answered

    def test_groups_are_known_by_their_texts(self):
        fitted = fit_group_thresholds(
            range(60), [True] * 60, [one % 2 for one in range(60)], risk=0.1
        )
        assert fitted.accepts(1, 0) and fitted.accepts(1, "1") and not fitted.accepts(1, 2)

    @pytest.mark.parametrize("group", [None, 1.5, ("a",), float("nan")])
    def test_what_is_no_group_is_refused(self, group):
        with pytest.raises(ConfigurationError, match=r"groups\[1\] is .*; allowed are texts"):
            fit_group_thresholds([1, 2], [True, True], ["a", group], risk=0.1)

    def test_every_question_has_one(self):
        with pytest.raises(ConfigurationError, match="there are 2 scores and 1 groups"):
            fit_group_thresholds([1, 2], [True, True], ["a"], risk=0.1)
        with pytest.raises(ConfigurationError, match="there are no graded questions"):
            fit_group_thresholds([], [], [], risk=0.1)


@pytest.mark.filterwarnings("ignore:Fixed sequence testing requires a monotonic risk:UserWarning")
@pytest.mark.filterwarnings("ignore:No predict parameters were found:UserWarning")
def test_mapie_promises_no_more():
    """Its p-values are the same, but where it takes one wrong answer for two in floats."""
    from mapie import risk_control as control

    agreed = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = np.linspace(0.01, 0.99, 80)
        right = rng.random(80) >= scores**3 * 0.8
        controller = control.BinaryClassificationController(
            lambda scores: np.hstack([scores, 1 - scores]),
            risk="precision",
            target_level=0.9,
            confidence_level=0.95,
            list_predict_params=1 - scores[39:],
            fwer_method="fixed_sequence",
        )
        controller.calibrate(scores[:, None], right.astype(int))
        theirs = max(1 - np.asarray(controller.valid_predict_params), default=-1.0)
        own = fit_threshold(scores, right, risk=0.1).value or -1.0
        assert theirs <= own + 1e-9
        agreed.append(theirs == pytest.approx(own))
    assert sum(agreed) > 10
