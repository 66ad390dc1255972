"""Calibration errors of confidences, and their bins."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.calibration.graded_answers import graded
from uq_llm_integrations import ConfigurationError
from uq_llm_integrations.calibration import ReliabilityBin, brier, ece, reliability

confident = graded(score=st.one_of(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.floats(0, 1)))


@given(data=confident, bins=st.integers(1, 20), equal_mass=st.booleans())
def test_every_answer_is_in_one_bin(data, bins, equal_mass):
    confidence, right = np.array(data[0]), np.array(data[1])
    found = reliability(confidence, right, bins=bins, equal_mass=equal_mass)
    assert len(found) <= bins
    assert sum(one.count for one in found) == len(confidence)
    assert sum(one.count * one.accuracy for one in found) == pytest.approx(right.sum())
    assert sum(one.count * one.confidence for one in found) == pytest.approx(confidence.sum())
    for one, other in pairwise(found):
        assert one.upper <= other.lower + 1e-12
    assert all(one.lower - 1e-12 <= one.confidence <= one.upper + 1e-12 for one in found)
    assert [ReliabilityBin.from_dict(one.to_dict()) for one in found] == list(found)


def test_bins_of_equal_mass_have_as_many_answers_each():
    found = reliability(np.linspace(0, 1, 60) ** 3, np.arange(60) > 30, bins=6, equal_mass=True)
    assert [one.count for one in found] == [10] * 6


def test_bins_of_equal_mass_do_not_part_ties():
    found = reliability([0.1] * 7 + [0.9] * 3, [True] * 10, bins=5, equal_mass=True)
    assert [one.count for one in found] == [7, 3]


def test_a_confidence_that_is_always_true_has_no_error():
    confidence = np.repeat([0.25, 0.75], 4)
    right = [True, False, False, False, True, True, True, False]
    assert ece(confidence, right).value == 0
    assert ece(confidence, right, equal_mass=True).value == 0


@given(data=confident)
def test_errors_are_between_0_and_1(data):
    assert 0 <= ece(*data).value <= 1
    assert 0 <= brier(*data).value <= 1


def test_the_bins_are_part_of_the_name():
    assert ece([0.5], [True]).name == "ece, 15 bins of the same width"
    assert ece([0.5], [True], bins=5, equal_mass=True).name == "ece, 5 bins of the same mass"


@pytest.mark.parametrize("measure", [ece, brier])
def test_an_unknown_confidence_makes_the_error_unknown(measure):
    found = measure([0.5, None, 0.9], [True, False, True])
    assert (found.value, found.unknown) == (None, 1)
    assert found.reason == "the confidence of 1 of 3 answers is unknown"
    assert measure([], []).reason == "there are no answers"


def test_a_diagram_of_unknown_confidences_is_refused():
    with pytest.raises(ConfigurationError, match="the confidence of 1 of 1 answers is unknown"):
        reliability([None], [True])


@pytest.mark.parametrize("value", [-0.01, 1.01, 80])
def test_a_confidence_is_from_0_to_1(value):
    with pytest.raises(ConfigurationError, match=r"confidence\[1\] is .*; allowed is 0 to 1"):
        ece([0.5, value], [True, False])


@pytest.mark.parametrize("bins", [0, -1, 2.5, True, None])
def test_bins_are_a_whole_number(bins):
    with pytest.raises(ConfigurationError, match=r"bins is .*; allowed is a whole number from 1"):
        ece([0.5], [True], bins=bins)
