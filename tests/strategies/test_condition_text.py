"""Conditions written as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import fuzz
from uq_llm_integrations import (
    Abstain,
    ConfigurationError,
    Policy,
    Retry,
    Single,
    Stepwise,
    UncertaintyError,
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


NAMES = "entropy > <= 1.5 - inf and or not ( ) worst_window( , 8 agreement calibrated( 1e400 True"
WORDS = st.sampled_from([*NAMES.split(), *"'\"\\\n\0é", "9" * 400])


@fuzz()
@given(st.lists(WORDS, max_size=20).map(" ".join) | st.text(max_size=30))
def test_any_text_is_a_condition_that_is_read_again_or_refused(text):
    try:
        condition = parse_condition(text)
    except UncertaintyError as error:
        assert str(error)
        return
    assert parse_condition(repr(condition)) == condition


@pytest.mark.parametrize("unit", ["(", "not ", "-", "((entropy > 1) or ", "[", " ", "9", "'"])
def test_no_text_takes_long_to_refuse(unit):
    with pytest.raises(ConfigurationError):
        parse_condition(unit * (15_000 // len(unit)))


@pytest.mark.parametrize("levels", [20, 33])
def test_brackets_have_a_limit(levels):
    text = "(" * levels + "entropy > 1" + ")" * levels
    if levels <= 32:
        assert parse_condition(text) == (score("entropy") > 1)
    else:
        with pytest.raises(ConfigurationError, match="32 brackets"):
            parse_condition(text)


@pytest.mark.parametrize("numbers", [18, 200])
def test_the_ways_in_which_a_condition_can_hold_have_a_limit(numbers):
    parts = [f"(entropy > {i + 1} or maxprob > {i + 1})" for i in range(numbers)]
    with pytest.raises(ConfigurationError, match=r"ways to be met|comparisons"):
        parse_condition(" and ".join(parts))
    with pytest.raises(ConfigurationError, match=r"ways to be met|comparisons"):
        condition = parse_condition(parts[0])
        for part in parts[1:]:
            condition = condition & parse_condition(part)


@pytest.mark.parametrize("threshold", ["9" * 400, "1e400", "True", "-1e999"])
def test_a_threshold_is_a_number_that_a_float_can_hold(threshold):
    with pytest.raises(ConfigurationError, match="wanted a number"):
        parse_condition(f"entropy > {threshold}")
    with pytest.raises(ConfigurationError, match="must be a number"):
        score("entropy") > 10**400  # noqa: B015  # it is refused
    assert parse_condition("entropy < inf and maxprob > 1").literals()


@pytest.mark.parametrize("given", [None, b"entropy > 1", 3])
def test_a_condition_is_a_text(given):
    with pytest.raises(ConfigurationError, match="text"):
        parse_condition(given)
