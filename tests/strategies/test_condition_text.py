"""Conditions written as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations import (
    Abstain,
    ConfigurationError,
    Policy,
    Retry,
    Single,
    Stepwise,
    agreement,
    score,
    token_max,
    token_mean,
    worst_window,
)
from uq_llm_integrations.strategies.condition_text import as_condition, parse_condition
from uq_llm_integrations.strategies.conditions import Comparison

quantities = st.sampled_from(
    [
        score("entropy"),
        score("maxprob"),
        agreement(),
        token_mean("entropy"),
        token_max("entropy", 4),
        worst_window("entropy", 8),
    ]
)
thresholds = st.floats(-1e9, 1e9) | st.integers(-9, 9)
comparisons = st.builds(Comparison, quantities, st.sampled_from([">", ">=", "<", "<="]), thresholds)


def joined(parts):
    one, other = parts
    for combine in (lambda: one & other, lambda: one | other):
        try:
            return combine()
        except ConfigurationError:  # it can never hold, or always does
            continue
    return one


conditions = st.recursive(
    comparisons,
    lambda parts: st.builds(lambda one: ~one, parts) | st.tuples(parts, parts).map(joined),
    max_leaves=4,
)


@given(condition=conditions)
def test_a_condition_is_what_its_own_text_describes(condition):
    assert parse_condition(repr(condition)) == condition


@pytest.mark.parametrize(
    "text",
    [
        "entropy >",
        "entropy > x",
        "1 < entropy",
        "entropy == 1",
        "0 < entropy < 1",
        "print(entropy) > 1",
        "worst_window(entropy, x) > 1",
        "worst_window(entropy) > 1",
        "__import__('os').system('true') > 1",
    ],
)
def test_text_that_is_no_condition_is_refused(text):
    with pytest.raises(ConfigurationError):
        parse_condition(text)


def test_thresholds_are_read_from_a_calibration_file(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text('{"thresholds": {"entropy": 0.8}}')
    condition = parse_condition(f'entropy > calibrated("{path}", "entropy") and maxprob >= -1')
    assert repr(condition) == "(entropy > 0.8 and maxprob >= -1)"


def test_a_condition_stays_itself_and_anything_else_is_refused():
    condition = score("entropy") > 1
    assert as_condition(condition) is condition
    with pytest.raises(ConfigurationError, match="3 is no condition"):
        as_condition(3)


def test_text_is_accepted_wherever_a_condition_is():
    text, condition = "entropy > 1.5", score("entropy") > 1.5
    assert Abstain(Single(), text) == Abstain(Single(), condition)
    assert Retry(Single(), text) == Retry(Single(), condition)
    assert Stepwise(branch_when=text) == Stepwise(branch_when=condition)
    assert Policy(text) == Policy(condition)


@pytest.mark.parametrize(
    "construct",
    [
        lambda: Abstain(Single(), "entropy"),
        lambda: Retry(Single(), "entropy"),
        lambda: Stepwise(branch_when="entropy"),
        lambda: Policy("entropy"),
    ],
)
def test_wrong_text_is_refused_at_construction(construct):
    with pytest.raises(ConfigurationError, match="wanted a comparison"):
        construct()
