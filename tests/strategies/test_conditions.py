"""Conditions: what they decide, what they cannot know, and how they read."""

import json
import math
from operator import ge, gt, le, lt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies.running import run
from uq_llm_integrations import (
    ConfigurationError,
    EngineError,
    InvalidRequestError,
    Policy,
    Request,
    Score,
    ScriptedBackend,
    ScriptedLine,
    Single,
    TokenTrace,
    UnknownMethodError,
    agreement,
    load_threshold,
    score,
    token_max,
    token_mean,
    worst_window,
)
from uq_llm_integrations.strategies.conditions import Comparison, Custom


def result_of(*lines):
    backend = ScriptedBackend(list(lines))
    return run(Single(), Request((1,), n=len(lines)), backend, ["mean_nll"])


SURE, UNSURE = ScriptedLine("yes", 0.9), ScriptedLine("yes", 0.5)  # means of 0.105 and 0.693 nats

YES = Custom(lambda result: True, "yes")
NO = Custom(lambda result: False, "no")
UNKNOWN = Custom(lambda result: None, "unknown")


def test_a_score_is_compared_with_a_threshold():
    assert (score("mean_nll") > 0.5)(result_of(UNSURE)) is True
    assert (score("mean_nll") > 0.5)(result_of(SURE)) is False
    assert (score("mean_nll") <= -math.log(0.5))(result_of(UNSURE)) is True


def test_windows_over_tokens():
    first, then = result_of(ScriptedLine("aa", 0.9)), result_of(ScriptedLine("bb", 0.5))
    joined = first.candidate.trace.joined(then.candidate.trace)
    result = result_of("four")
    object.__setattr__(result.candidates[0], "trace", joined)
    low, high = -math.log(0.9), -math.log(0.5)
    for quantity, expected in [
        (token_mean("mean_nll"), (low + high) / 2),
        (token_mean("mean_nll", last=2), high),
        (token_max("mean_nll"), high),
        (worst_window("mean_nll", 2), high),
        (worst_window("mean_nll", 3), (low + 2 * high) / 3),
        (worst_window("mean_nll", 99), (low + high) / 2),
    ]:
        assert quantity(result) == pytest.approx((expected, expected)), quantity


def test_agreement_is_the_share_of_whole_candidates_with_the_same_answer():
    result = result_of("Paris", " “PARIS”.", "Rome", EngineError("broken"))
    assert agreement()(result) == (2 / 3, 2 / 3)


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        (YES & NO, False),
        (YES | NO, True),
        (~NO, True),
        (NO & UNKNOWN, False),
        (YES & UNKNOWN, None),
        (YES | UNKNOWN, True),
        (NO | UNKNOWN, None),
        (~UNKNOWN, None),
    ],
)
def test_what_is_unknown_decides_only_where_it_matters(condition, outcome):
    assert condition(result_of(SURE)) is outcome


def test_a_score_that_is_not_known_leaves_the_condition_open():
    assert (score("mean_nll") > 0.5)(result_of("")) is None


def test_a_score_that_was_not_requested_leaves_the_condition_open():
    assert (score("entropy") > 0.5)(result_of(SURE)) is None


class OneAnswer:
    """What a framework hands on of an answer."""

    trace = TokenTrace(9, np.log([0.5, 0.25]))

    def score(self, name):
        return Score(name, 2.0)


def test_what_has_scores_and_a_trace_is_enough_for_a_condition():
    assert (score("entropy") > 1)(OneAnswer()) is True
    assert (token_max("mean_nll") > 1)(OneAnswer()) is True


def test_without_samples_and_a_result_their_conditions_are_left_open():
    assert (agreement() < 0.5)(OneAnswer()) is None
    assert YES(OneAnswer()) is None


def test_conditions_read_as_they_were_written():
    condition = (score("entropy") > 1.5) & ~(agreement() >= 0.5) | (worst_window("entropy", 8) > 3)
    text = "((entropy > 1.5 and not agreement >= 0.5) or worst_window(entropy, 8) > 3)"
    assert repr(condition) == text
    assert condition.methods == ("entropy",)
    assert condition.needs_samples


def test_python_words_in_place_of_signs_are_refused():
    with pytest.raises(TypeError, match="&"):
        assert YES and NO


quantities = st.sampled_from([score("mean_nll"), score("entropy")])
comparisons = st.builds(
    Comparison, quantities, st.sampled_from([">", ">=", "<", "<="]), st.integers(0, 3)
)


@given(one=comparisons, other=comparisons)
def test_only_what_can_never_or_always_hold_is_refused(one, other):
    """Against a scan of values on a grid that is finer than the thresholds."""

    def holds(comparison, values):
        value, edge = values[comparison.quantity.method], comparison.threshold
        compare = {">": gt, ">=": ge, "<": lt, "<=": le}[comparison.operator]
        return compare(value, edge)

    grid = [i / 2 for i in range(-2, 9)]
    worlds = [{"mean_nll": p, "entropy": e} for p in grid for e in grid]
    outcomes = {holds(one, world) and holds(other, world) for world in worlds}
    if True in outcomes:
        one & other
    else:
        with pytest.raises(ConfigurationError, match="never"):
            one & other
    if all(holds(one, world) or holds(other, world) for world in worlds):
        with pytest.raises(ConfigurationError, match="always"):
            one | other


def test_a_score_that_was_not_requested_is_an_error_for_whoever_acts():
    condition = (score("mean_nll") > 9) | (score("entropy") > 0.5)
    with pytest.raises(InvalidRequestError, match=r"methods=\['entropy'\]"):
        condition.is_met(result_of(SURE))
    with pytest.raises(InvalidRequestError, match="entropy"):
        Policy("entropy > 0.5").decide(result_of(SURE))
    assert (score("mean_nll") > 0.5).is_met(result_of("")) is True  # it is not known
    assert (score("MeanNegativeLogLikelihood") > 0.5).is_met(result_of(SURE)) is False


def test_agreement_needs_two_candidates_that_came_to_an_end():
    assert agreement()(result_of("Paris")) is None
    assert agreement()(result_of("Paris", EngineError("broken"))) is None


def test_what_can_never_be_decided_is_refused():
    with pytest.raises(ConfigurationError, match="semantic_entropy has no value"):
        worst_window("semantic_entropy", 4)
    with pytest.raises(ConfigurationError, match="must be a number"):
        score("entropy") > math.nan  # noqa: B015  # it raises
    with pytest.raises(UnknownMethodError):
        score("entropie")
    with pytest.raises(ConfigurationError, match="token_mean"):
        score("TokenEntropy")
    with pytest.raises(ConfigurationError, match="at least 1"):
        worst_window("entropy", 0)


def test_thresholds_come_from_a_calibration_file(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"thresholds": {"entropy": 0.8}}))
    assert repr(score("entropy") > load_threshold(path, "entropy")) == "entropy > 0.8"
    with pytest.raises(ConfigurationError, match="did you mean 'entropy'"):
        load_threshold(path, "entropi")
    with pytest.raises(ConfigurationError, match="no calibration file"):
        load_threshold(tmp_path / "none.json", "entropy")
