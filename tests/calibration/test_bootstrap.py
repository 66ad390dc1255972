"""Intervals hold the true value as often as they say, and are not given where there is none."""

from functools import partial

import numpy as np
import pytest

from tests.calibration.graded_answers import drawn
from uq_llm_integrations import ConfigurationError
from uq_llm_integrations.calibration import (
    Metric,
    auroc,
    bootstrap,
    bootstrap_difference,
    brier,
    prr,
)


def test_an_interval_is_around_the_value_and_comes_again():
    data = drawn(0, 200)
    found = bootstrap(auroc, *data, seed=3)
    assert found.interval.lower < found.value < found.interval.upper
    assert found == bootstrap(auroc, *data, seed=3) != bootstrap(auroc, *data, seed=4)
    assert Metric.from_dict(found.to_dict()) == found


def test_intervals_hold_the_true_value_as_often_as_they_say():
    """Two normal distributions that are a deviation apart have the AUROC 0.76."""
    held = 0
    for seed in range(200):
        interval = bootstrap(auroc, *drawn(seed, 150), resamples=100, level=0.9).interval
        held += interval.lower <= 0.7602 <= interval.upper
    assert 0.83 <= held / 200 <= 0.97


def test_more_answers_make_it_narrower():
    widths = []
    for count in (50, 5000):
        interval = bootstrap(
            partial(prr, max_rejection=1), *drawn(1, count), resamples=200
        ).interval
        widths.append(interval.upper - interval.lower)
    assert widths[1] < widths[0] / 5


def test_confidences_have_intervals_too():
    rng = np.random.default_rng(0)
    confidence = rng.random(300)
    found = bootstrap(brier, confidence, rng.random(300) < confidence, resamples=200)
    assert found.interval.lower < 1 / 6 < found.interval.upper


def test_hardly_any_wrong_answers_give_no_interval():
    found = bootstrap(auroc, range(30), [True] * 29 + [False])
    assert found.value == 1 and found.interval is None
    assert "of 1000 resamples have no value" in found.no_interval


def test_no_value_has_no_interval():
    assert bootstrap(auroc, [1, 2], [True, True]).no_interval == "all 2 answers are right"
    found = bootstrap_difference(auroc, [1, 2], [2, 1], [True, True])
    assert (found.value, found.reason) == (None, "all 2 answers are right")


def test_a_difference_on_the_same_questions_is_surer_than_the_values():
    scores, right = drawn(2, 300)
    worse = scores + np.random.default_rng(0).normal(size=300)
    difference = bootstrap_difference(auroc, scores, worse, right)
    both = [bootstrap(auroc, one, right) for one in (scores, worse)]
    assert difference.value == pytest.approx(both[0].value - both[1].value)
    assert difference.interval.lower > 0
    assert both[1].interval.upper > both[0].interval.lower


@pytest.mark.parametrize(
    "options", [{"level": 1}, {"level": 0}, {"resamples": 0}, {"seed": -1}, {"seed": 0.5}]
)
def test_options_are_checked(options):
    with pytest.raises(ConfigurationError, match=f"{next(iter(options))} is "):
        bootstrap(auroc, [1, 2], [True, False], **options)
