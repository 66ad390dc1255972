"""Abstention and the policy, on a backend that answers from a script."""

import pytest

from tests.strategies.running import run
from uq_llm_integrations import (
    Abstain,
    ConfigurationError,
    EarlyStop,
    HighUncertaintyError,
    Policy,
    Request,
    ScriptedBackend,
    ScriptedLine,
    Single,
    score,
)

UNCERTAIN = score("mean_nll") > 0.5
SURE, UNSURE = ScriptedLine("sure", 0.9), ScriptedLine("unsure", 0.5)


def request(**fields) -> Request:
    return Request((63,), sampling={"temperature": 1.0}, **fields)


def test_an_uncertain_answer_is_annotated_replaced_or_raised():
    backend = ScriptedBackend([UNSURE])
    noted = run(Abstain(Single(), UNCERTAIN), request(), backend)
    assert (noted.text, noted.decision.is_uncertain) == ("unsure", True)
    assert noted.decision.condition == "mean_nll > 0.5"
    replaced = run(Abstain(Single(), UNCERTAIN, "abstain", "I pass."), request(), backend)
    assert (replaced.text, replaced.candidate.text) == ("I pass.", "unsure")
    assert replaced.decision.action == "abstained"
    with pytest.raises(HighUncertaintyError, match=r"mean_nll > 0\.5") as caught:
        run(Abstain(Single(), UNCERTAIN, "raise"), request(), backend)
    assert caught.value.result.candidate.text == "unsure"


def test_what_cannot_be_known_counts_as_uncertain():
    result = run(Abstain(Single(), UNCERTAIN, "abstain"), request(), ScriptedBackend([""]))
    assert result.decision.action == "abstained"


def test_a_certain_answer_is_accepted():
    result = run(Abstain(Single(), UNCERTAIN, "raise"), request(), ScriptedBackend([SURE]))
    assert (result.decision.action, result.decision.is_uncertain) == ("accepted", False)


def test_a_cut_answer_stays_uncertain_where_the_condition_does_not_hold():
    cut = request(early_stop=EarlyStop(1.0, window=4))
    strategy = Abstain(Single(), "mean_nll > 9", "abstain")
    result = run(strategy, cut, ScriptedBackend([ScriptedLine("long and unsure", 0.3)]))
    assert (result.decision.action, result.decision.is_uncertain) == ("accepted", True)
    assert result.decision.condition == "the answer ended by early_stop"


def test_how_the_sampling_ended_stays_beside_what_was_decided():
    cut = request(early_stop=EarlyStop(1.0, window=4))
    strategy = Abstain(Single(), "mean_nll > 0.5", "abstain")
    result = run(strategy, cut, ScriptedBackend([ScriptedLine("long and unsure", 0.3)]))
    assert (result.decision.action, result.decision.condition) == ("abstained", "mean_nll > 0.5")
    assert result.sampling_end.reason == "the answer ended by early_stop"


def test_a_policy_without_a_condition_changes_nothing():
    strategy = Single()
    result = run(strategy, request(), ScriptedBackend([UNSURE]))
    assert Policy().wrap(strategy) is strategy
    assert Policy().decide(result) is result
    assert Policy().methods == ()
    assert not Policy().is_uncertain(result)


def test_a_policy_wraps_a_strategy():
    policy = Policy("mean_nll > 0.5", "abstain", "I pass.")
    assert policy.wrap(Single()) == Abstain(Single(), UNCERTAIN, "abstain", "I pass.")
    assert policy.methods == ("mean_nll",)


def test_a_policy_decides_about_a_scored_result():
    result = run(Single(), request(), ScriptedBackend([UNSURE]), ["mean_nll"])
    assert Policy("mean_nll > 0.5").is_uncertain(result)
    assert not Policy("mean_nll > 9").is_uncertain(result)
    assert Policy("mean_nll > 0.5", "abstain", "I pass.").decide(result).text == "I pass."
    with pytest.raises(HighUncertaintyError, match=r"mean_nll > 0\.5"):
        Policy("mean_nll > 0.5", "raise").decide(result)


def test_what_a_policy_cannot_know_counts_as_uncertain():
    result = run(Single(), request(), ScriptedBackend([""]), ["mean_nll"])
    assert Policy("mean_nll > 0.5").is_uncertain(result)


def test_a_policy_that_can_never_work_is_refused():
    with pytest.raises(ConfigurationError, match="allowed are annotate, abstain, raise"):
        Policy("entropy > 1", "stop")
    with pytest.raises(ConfigurationError, match="needs `uncertain_when`"):
        Policy(on_high_uncertainty="abstain")
