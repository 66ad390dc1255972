"""Retries, on a backend that answers from a script."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import stop_after_attempt, wait_fixed

from tests.strategies.running import run
from uq_llm_integrations import (
    Abstain,
    BestOfN,
    Boundary,
    ConfigurationError,
    EarlyStop,
    EngineDeadError,
    HighUncertaintyError,
    InvalidRequestError,
    MethodUnavailableError,
    Request,
    Retry,
    RetryErrors,
    ScriptedBackend,
    ScriptedLine,
    SelfConsistency,
    Single,
    Stepwise,
    UncertaintyModel,
    agreement,
    run_strategy,
    score,
)
from uq_llm_integrations.strategies.base import Strategy

UNCERTAIN = score("mean_nll") > 0.5
SURE, UNSURE = ScriptedLine("sure", 0.9), ScriptedLine("unsure", 0.5)


def request(**sampling) -> Request:
    return Request((63,), sampling={"temperature": 1.0} | sampling, text="?")


def test_an_uncertain_answer_is_tried_again_with_other_seed_and_temperature():
    backend = ScriptedBackend([UNSURE, UNSURE, SURE])
    strategy = Retry(Single(), UNCERTAIN, temperatures=(0.7, 0.3))
    result = run(strategy, request(seed=10), backend)
    varied = [(one.sampling["seed"], one.sampling["temperature"]) for one in backend.requests]
    assert varied == [(10, 1.0), (11, 0.7), (12, 0.3)]
    assert result.text == "sure"
    assert [one.text for one in result.attempts] == ["unsure", "unsure"]
    assert result.decision.action == "retried"
    assert not result.decision.is_uncertain
    assert result.usage.generated_tokens == 6 + 6 + 4


def test_a_good_answer_is_not_tried_again():
    backend = ScriptedBackend([SURE])
    result = run(Retry(Single(), UNCERTAIN), request(), backend)
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
    result = run(strategy, request(), ScriptedBackend([UNSURE]))
    assert seen == [(1, 0.01)]
    assert len(result.attempts) == 1
    assert result.decision.is_uncertain


@given(attempts=st.integers(1, 5), script=st.lists(st.sampled_from([SURE, UNSURE]), min_size=1))
def test_the_attempts_never_exceed_their_number(attempts, script):
    backend = ScriptedBackend(script)
    run(Retry(Single(), UNCERTAIN, attempts=attempts), request(), backend)
    assert len(backend.requests) <= attempts


def test_tenacitys_stop_overrides_the_number_of_attempts():
    backend = ScriptedBackend([UNSURE])
    run(Retry(Single(), UNCERTAIN, attempts=2, stop=stop_after_attempt(4)), request(), backend)
    assert len(backend.requests) == 4


def test_errors_are_retried_as_often_as_there_are_attempts():
    backend = ScriptedBackend([EngineDeadError("gone")])
    with pytest.raises(EngineDeadError):
        run(RetryErrors(Single(), attempts=4, wait=wait_fixed(0)), request(), backend)
    assert len(backend.requests) == 4


@pytest.mark.parametrize("inner", [RetryErrors(Single()), Retry(RetryErrors(Single()), UNCERTAIN)])
def test_errors_are_not_retried_within_a_retry_of_errors(inner):
    """Three attempts of three would be nine requests to an engine that is in trouble already."""
    with pytest.raises(ConfigurationError, match="only once"):
        RetryErrors(inner)
    with pytest.raises(ConfigurationError, match="only once"):
        UncertaintyModel(ScriptedBackend(["?"]), strategy=inner, max_retries=1)


async def test_a_callback_may_be_a_coroutine():
    seen = []

    async def note(state):
        seen.append(state.attempt_number)

    strategy = Retry(Single(), UNCERTAIN, after=note)
    await run_strategy(strategy, request(), ScriptedBackend([UNSURE]))
    assert seen == [1, 2, 3]


def test_a_bigger_model_is_the_last_resort():
    bigger = ScriptedBackend([ScriptedLine("the bigger one knows", 0.99)])
    strategy = Retry(Single(), UNCERTAIN, stop=stop_after_attempt(2), last_resort=bigger)
    result = run(strategy, request(), ScriptedBackend([UNSURE]))
    assert result.text == "the bigger one knows"
    assert len(result.attempts) == 2
    assert bigger.requests[0].prompt_ids == tuple(b"?")
    assert result.usage.generated_tokens == 6 + 6 + len("the bigger one knows")


def test_the_last_resort_takes_all_its_steps_on_the_bigger_model():
    bigger = ScriptedBackend({"?": ["one\n"], "?one\n": ["two"]})
    stepwise = Stepwise(1, boundary=Boundary(("\n",)))
    strategy = Retry(stepwise, UNCERTAIN, stop=stop_after_attempt(1), last_resort=bigger)
    assert run(strategy, request(), ScriptedBackend([UNSURE])).text == "one\ntwo"


def test_a_greedy_retry_that_would_repeat_itself_is_refused():
    with pytest.raises(ConfigurationError, match="same answer again"):
        run(Retry(Single(), UNCERTAIN), request(temperature=0), ScriptedBackend([SURE]))
    bigger = ScriptedBackend([SURE])
    backend = ScriptedBackend([UNSURE])
    run(Retry(Single(), UNCERTAIN, last_resort=bigger), request(temperature=0), backend)
    assert (len(backend.requests), len(bigger.requests)) == (1, 1)


def test_errors_of_the_engine_are_retried_by_a_rule_of_their_own():
    backend = ScriptedBackend([EngineDeadError("gone"), UNSURE, SURE])
    strategy = Retry(RetryErrors(Single(), wait=wait_fixed(0)), UNCERTAIN)
    result = run(strategy, request(), backend)
    assert result.text == "sure"
    assert len(result.attempts) == 1  # the failed call was none


def test_an_error_that_trying_again_cannot_help_is_raised_at_once():
    backend = ScriptedBackend([InvalidRequestError("no"), SURE])
    with pytest.raises(InvalidRequestError):
        run(RetryErrors(Single()), request(), backend)
    assert len(backend.requests) == 1


@pytest.mark.parametrize("last_resort", [None, ScriptedBackend([EngineDeadError("gone")])])
def test_an_attempt_that_fails_loses_none_before_it(last_resort):
    backend = ScriptedBackend(
        [UNSURE, EngineDeadError("gone")] if last_resort is None else [UNSURE]
    )
    strategy = Retry(Single(), UNCERTAIN, attempts=2, last_resort=last_resort)
    result = run(strategy, request(), backend)
    assert result.text == "unsure"
    assert result.decision.is_uncertain
    assert result.decision.condition.endswith("a retry failed: gone")


def test_a_retry_of_a_best_of_n_that_may_abstain():
    backend = ScriptedBackend(["Rome", "Oslo", "Bern", "Paris", "Paris", "Lima"])
    strategy = Abstain(Retry(BestOfN(3, "majority"), when=agreement() < 0.5), when="mean_nll > 0.2")
    result = run(strategy, request(seed=1), backend)
    assert result.text == "Paris"
    assert [one.sampling["seed"] for one in backend.requests] == [1, 4]
    assert result.decision.action == "retried"
    assert len(result.attempts) == 1


def test_conditions_that_cannot_be_decided_are_refused():
    with pytest.raises(ConfigurationError, match="only one"):
        run(Abstain(Single(), agreement() < 0.5), request(), ScriptedBackend([SURE]))
    run(Abstain(SelfConsistency(3), agreement() < 0.5), request(), ScriptedBackend([SURE]))
    with pytest.raises(ConfigurationError, match="allowed are annotate, abstain, raise"):
        Abstain(Single(), UNCERTAIN, "stop")
    with pytest.raises(ConfigurationError, match="attempts"):
        Retry(Single(), UNCERTAIN, attempts=0)
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
        run(strategy, request(), WithoutProbe([SURE]))


def test_a_retry_whose_last_attempt_was_cut_is_uncertain():
    """Also where the condition does not hold."""
    backend = ScriptedBackend([ScriptedLine("long and unsure", 0.3)])
    cut = replace(request(), early_stop=EarlyStop(1.0, window=4))
    result = run(Retry(Single(), "mean_nll > 9"), cut, backend)
    assert result.decision.is_uncertain
    assert result.sampling_end.kind == "stopped_early"


@dataclass(frozen=True)
class Stumbling(Strategy):
    """Samples two answers and keeps the second, and fails the first time."""

    failures: list[Exception]

    async def __call__(self, run):
        _, second = await run.sample(), await run.sample()
        if self.failures:
            raise self.failures.pop()
        return second


def test_usage_counts_what_failed_attempts_and_strategies_have_not_kept():
    backend = ScriptedBackend(["one", "three"])
    strategy = RetryErrors(Stumbling([EngineDeadError("gone")]), wait=wait_fixed(0))
    result = run(strategy, request(), backend)
    assert result.text == "three"
    assert result.usage.generated_tokens == 2 * (3 + 5)
    assert result.usage.prompt_tokens == 4


def test_uncertainty_is_no_error_of_the_engine():
    backend = ScriptedBackend([UNSURE, SURE])
    with pytest.raises(HighUncertaintyError):
        run(RetryErrors(Abstain(Single(), UNCERTAIN, "raise")), request(), backend)
    assert len(backend.requests) == 1
