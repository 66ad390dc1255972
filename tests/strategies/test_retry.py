"""Retry and abstention, on a backend that answers from a script."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import stop_after_attempt, wait_fixed

from uq_llm_integrations.backends.scripted import ScriptedBackend, ScriptedLine
from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineDeadError,
    HighUncertaintyError,
    InvalidRequestError,
    MethodUnavailableError,
)
from uq_llm_integrations.records import Request
from uq_llm_integrations.strategies.abstain import Abstain
from uq_llm_integrations.strategies.best_of_n import BestOfN, SelfConsistency, Single
from uq_llm_integrations.strategies.boundaries import Boundary
from uq_llm_integrations.strategies.drive import drive
from uq_llm_integrations.strategies.quantities import agreement, score
from uq_llm_integrations.strategies.retry import Retry, RetryErrors
from uq_llm_integrations.strategies.stepwise import Stepwise

UNCERTAIN = score("perplexity") > 0.5
SURE, UNSURE = ScriptedLine("sure", 0.9), ScriptedLine("unsure", 0.5)


def request(**sampling) -> Request:
    return Request((63,), sampling={"temperature": 1.0} | sampling, text="?")


def test_an_uncertain_answer_is_tried_again_with_other_seed_and_temperature():
    backend = ScriptedBackend([UNSURE, UNSURE, SURE])
    strategy = Retry(Single(), UNCERTAIN, temperatures=(0.7, 0.3))
    result = drive(strategy, request(seed=10), backend)
    asked = [(one.sampling["seed"], one.sampling["temperature"]) for one in backend.requests]
    assert asked == [(10, 1.0), (11, 0.7), (12, 0.3)]
    assert result.text == "sure"
    assert [one.text for one in result.attempts] == ["unsure", "unsure"]
    assert result.decision.action == "retried"
    assert not result.decision.is_uncertain
    assert result.usage.generated_tokens == 6 + 6 + 4


def test_a_good_answer_is_not_tried_again():
    backend = ScriptedBackend([SURE])
    result = drive(Retry(Single(), UNCERTAIN), request(), backend)
    assert len(backend.requests) == 1
    assert result.decision.action == "accepted"


def test_tenacitys_own_stop_wait_and_callbacks_are_used():
    seen = []
    strategy = Retry(
        Single(),
        UNCERTAIN,
        stop=stop_after_attempt(2),
        wait=wait_fixed(0.01),
        before_sleep=lambda state: seen.append((state.attempt_number, state.next_action.sleep)),
    )
    result = drive(strategy, request(), ScriptedBackend([UNSURE]))
    assert seen == [(1, 0.01)]
    assert len(result.attempts) == 1
    assert result.decision.is_uncertain


@given(attempts=st.integers(1, 5), script=st.lists(st.sampled_from([SURE, UNSURE]), min_size=1))
def test_the_attempts_never_exceed_their_number(attempts, script):
    backend = ScriptedBackend(script)
    drive(Retry(Single(), UNCERTAIN, stop=stop_after_attempt(attempts)), request(), backend)
    assert len(backend.requests) <= attempts


def test_a_bigger_model_is_the_last_resort():
    bigger = ScriptedBackend([ScriptedLine("the bigger one knows", 0.99)])
    strategy = Retry(Single(), UNCERTAIN, stop=stop_after_attempt(2), last_resort=bigger)
    result = drive(strategy, request(), ScriptedBackend([UNSURE]))
    assert result.text == "the bigger one knows"
    assert len(result.attempts) == 2
    assert bigger.requests[0].prompt_ids == tuple(b"?")


def test_the_last_resort_takes_all_its_steps_on_the_bigger_model():
    bigger = ScriptedBackend({"?": ["one\n"], "?one\n": ["two"]})
    stepwise = Stepwise(1, boundary=Boundary(("\n",)))
    strategy = Retry(stepwise, UNCERTAIN, stop=stop_after_attempt(1), last_resort=bigger)
    assert drive(strategy, request(), ScriptedBackend([UNSURE])).text == "one\ntwo"


def test_a_greedy_retry_that_would_repeat_itself_is_refused():
    with pytest.raises(ConfigurationError, match="same answer again"):
        drive(Retry(Single(), UNCERTAIN), request(temperature=0), ScriptedBackend([SURE]))
    bigger = ScriptedBackend([SURE])
    backend = ScriptedBackend([UNSURE])
    drive(Retry(Single(), UNCERTAIN, last_resort=bigger), request(temperature=0), backend)
    assert (len(backend.requests), len(bigger.requests)) == (1, 1)


def test_errors_of_the_engine_are_retried_by_a_rule_of_their_own():
    backend = ScriptedBackend([EngineDeadError("gone"), UNSURE, SURE])
    strategy = Retry(RetryErrors(Single(), wait=wait_fixed(0)), UNCERTAIN)
    result = drive(strategy, request(), backend)
    assert result.text == "sure"
    assert len(result.attempts) == 1  # the failed call was none


def test_an_error_that_trying_again_cannot_help_is_raised_at_once():
    backend = ScriptedBackend([InvalidRequestError("no"), SURE])
    with pytest.raises(InvalidRequestError):
        drive(RetryErrors(Single()), request(), backend)
    assert len(backend.requests) == 1


@pytest.mark.parametrize("last_resort", [None, ScriptedBackend([EngineDeadError("gone")])])
def test_an_attempt_that_fails_loses_none_before_it(last_resort):
    backend = ScriptedBackend(
        [UNSURE, EngineDeadError("gone")] if last_resort is None else [UNSURE]
    )
    strategy = Retry(Single(), UNCERTAIN, stop_after_attempt(2), last_resort=last_resort)
    result = drive(strategy, request(), backend)
    assert result.text == "unsure"
    assert result.decision.is_uncertain
    assert result.decision.condition.endswith("a retry failed: gone")


def test_an_uncertain_answer_is_annotated_replaced_or_raised():
    backend = ScriptedBackend([UNSURE])
    noted = drive(Abstain(Single(), UNCERTAIN), request(), backend)
    assert (noted.text, noted.decision.is_uncertain) == ("unsure", True)
    assert noted.decision.condition == "perplexity > 0.5"
    replaced = drive(Abstain(Single(), UNCERTAIN, "abstain", "I pass."), request(), backend)
    assert (replaced.text, replaced.candidate.text) == ("I pass.", "unsure")
    assert replaced.decision.action == "abstained"
    with pytest.raises(HighUncertaintyError, match=r"perplexity > 0\.5") as caught:
        drive(Abstain(Single(), UNCERTAIN, "raise"), request(), backend)
    assert caught.value.result.candidate.text == "unsure"


def test_what_cannot_be_known_counts_as_uncertain():
    result = drive(Abstain(Single(), UNCERTAIN, "abstain"), request(), ScriptedBackend([""]))
    assert result.decision.action == "abstained"


def test_a_retry_of_a_best_of_n_that_may_abstain():
    backend = ScriptedBackend(["Rome", "Oslo", "Bern", "Paris", "Paris", "Lima"])
    strategy = Abstain(
        Retry(BestOfN(3, "majority"), when=agreement() < 0.5), when=score("perplexity") > 0.2
    )
    result = drive(strategy, request(seed=1), backend)
    assert result.text == "Paris"
    assert [one.sampling["seed"] for one in backend.requests] == [1, 4]
    assert result.decision.action == "retried"
    assert len(result.attempts) == 1


def test_conditions_that_cannot_be_asked_are_refused():
    with pytest.raises(ConfigurationError, match="only one"):
        drive(Abstain(Single(), agreement() < 0.5), request(), ScriptedBackend([SURE]))
    drive(Abstain(SelfConsistency(3), agreement() < 0.5), request(), ScriptedBackend([SURE]))
    with pytest.raises(ConfigurationError, match="allowed are annotate, abstain, raise"):
        Abstain(Single(), UNCERTAIN, "stop")
    with pytest.raises(ConfigurationError, match="temperature"):
        Retry(Single(), UNCERTAIN, temperatures=[float("nan")])


class WithoutProbe(ScriptedBackend):
    @property
    def capabilities(self):
        return replace(super().capabilities, why_inexact="it has no probe")


@pytest.mark.parametrize(
    "strategy",
    [Abstain(Single(), score("self_certainty") > -1), BestOfN(2, "self_certainty")],
)
def test_scores_that_the_backend_cannot_give_are_refused(strategy):
    with pytest.raises(MethodUnavailableError, match="it has no probe"):
        drive(strategy, request(), WithoutProbe([SURE]))
