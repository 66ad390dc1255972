"""Best of N and self-consistency, on a backend that answers from a script."""

import asyncio
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies.running import run
from uq_llm_integrations import (
    BestOfN,
    ConfigurationError,
    Decision,
    EarlyStop,
    EngineError,
    Request,
    SamplingEnd,
    ScriptedBackend,
    ScriptedLine,
    SelfConsistency,
    Single,
    UnknownMethodError,
    run_strategy,
)

sure = st.sampled_from([0.3, 0.5, 0.8, 0.9, 0.99])
lines = st.lists(
    st.builds(ScriptedLine, st.sampled_from(["Paris", "Rome", "paris.", "Oslo", ""]), sure)
    | st.builds(EngineError, st.just("broken")),
    min_size=2,
    max_size=7,
).filter(lambda them: any(isinstance(line, ScriptedLine) for line in them))
rules = st.sampled_from(["perplexity", "mean_nll", "entropy", "maxprob", "borda", "majority"])


def request(n: int = 1, **sampling) -> Request:
    return Request((63,), n, sampling={"max_tokens": 64, "temperature": 1.0} | sampling)


def winner(strategy, script):
    result = run(strategy, request(), ScriptedBackend(script))
    return result.candidate.token_ids, result.candidate.finish_reason


@given(script=lines, by=rules, data=st.data())
def test_the_order_of_the_candidates_never_changes_the_winner(script, by, data):
    shuffled = data.draw(st.permutations(script))
    for strategy in (BestOfN(len(script), by), SelfConsistency(len(script), settle=None)):
        assert winner(strategy, script) == winner(strategy, shuffled)


@given(script=lines, by=rules)
def test_a_failed_candidate_never_wins(script, by):
    for strategy in (BestOfN(len(script), by), SelfConsistency(len(script), settle=None)):
        _, reason = winner(strategy, script)
        assert reason == "stop"


@given(script=lines, by=st.sampled_from(["maxprob", "perplexity", "mean_nll"]))
def test_aborting_the_hopeless_never_changes_the_winner(script, by):
    patient, eager = BestOfN(len(script), by, settle=False), BestOfN(len(script), by)
    assert winner(patient, script) == winner(eager, script)


@given(script=lines.filter(lambda them: isinstance(them[0], ScriptedLine)))
def test_a_vote_settled_for_certain_never_changes_the_answer(script):
    waiting = SelfConsistency(len(script), settle=None)
    settling = SelfConsistency(len(script), settle=1.0, wave=len(script) - 1)
    answer = waiting.answer
    texts = [
        run(strategy, request(), ScriptedBackend(script)).candidate.text
        for strategy in (waiting, settling)
    ]
    votes = [answer(line.text) for line in script if isinstance(line, ScriptedLine)]
    most = max(votes.count(vote) for vote in votes)
    assert {votes.count(answer(text)) for text in texts} == {most}


@given(script=lines, wave=st.integers(1, 5), n=st.integers(1, 12))
def test_no_more_than_n_samples_are_generated(script, wave, n):
    backend = ScriptedBackend(script)
    try:
        run(SelfConsistency(n, wave=wave), request(), backend)
    except EngineError:
        assert any(isinstance(line, EngineError) for line in script)
    assert sum(one.n for one in backend.requests) <= n


@given(script=lines, by=rules)
def test_sync_and_async_give_the_same(script, by):
    def plain(result):
        usage = asdict(result.usage) | {"seconds": 0}
        ends = result.decision, result.sampling_end
        return [one.token_ids for one in result.candidates], result.scores, usage, ends

    strategy = BestOfN(len(script), by)
    sync = run(strategy, request(), ScriptedBackend(script))
    other = asyncio.run(run_strategy(strategy, request(), ScriptedBackend(script)))
    assert plain(sync) == plain(other)


def test_the_least_uncertain_wins_and_the_unknown_comes_last():
    script = [ScriptedLine("so so", 0.5), ScriptedLine("sure", 0.9), "", EngineError("broken")]
    result = run(BestOfN(4, "perplexity"), request(), ScriptedBackend(script))
    assert [one.text for one in result.candidates] == ["sure", "so so", "", ""]
    assert result.candidates[-1].error is not None


def test_votes_can_outweigh_the_single_best():
    script = [
        ScriptedLine("Rome", 0.99),
        ScriptedLine("Paris", 0.9),
        ScriptedLine("paris", 0.8),
        ScriptedLine("Paris!", 0.7),
    ]
    assert winner(BestOfN(4, "perplexity"), script)[0] == tuple(b"Rome")
    for strategy in (BestOfN(4, "borda"), BestOfN(4, "majority"), SelfConsistency(4)):
        assert winner(strategy, script)[0] == tuple(b"Paris")


def test_samples_that_cannot_win_are_aborted_and_counted():
    script = [ScriptedLine("ok", 0.9), ScriptedLine("a long and doubtful answer", 0.5)]
    result = run(BestOfN(2, "maxprob"), request(), ScriptedBackend(script))
    assert [one.finish_reason for one in result.candidates] == ["stop", "abort"]
    assert result.usage.generated_tokens == 2 + 2
    assert result.usage.saved_tokens == 64 - 2
    assert result.sampling_end.kind == "stopped_early"
    assert result.decision == Decision()


def test_a_wave_that_fails_loses_nothing_of_the_waves_before():
    script = ["Paris", "Rome", EngineError("broken"), EngineError("broken")]
    result = run(SelfConsistency(4, wave=2), request(), ScriptedBackend(script))
    assert len(result.candidates) == 2
    assert result.sampling_end == SamplingEnd("failed", "a wave of samples failed: broken")
    assert result.decision == Decision()


def test_sampling_stops_once_the_vote_is_settled():
    result = run(SelfConsistency(16), request(seed=5), backend := ScriptedBackend(["Paris"]))
    assert [(one.n, one.sampling["seed"]) for one in backend.requests] == [(4, 5)]
    assert result.sampling_end == SamplingEnd("stopped_early", "the vote was settled at 0.95")
    assert result.decision == Decision()
    assert result.usage.saved_tokens == 12 * 64


def test_sampling_stops_once_no_other_sequence_can_be_better():
    script = [ScriptedLine("ab", 0.5), ScriptedLine("cd", 0.8), ScriptedLine("e", 0.6)]
    result = run(BestOfN(16, "maxprob", wave=1), request(), backend := ScriptedBackend(script))
    assert (result.text, len(backend.requests)) == ("cd", 2)
    reason = "no other sequence can be better by more than 0.0 nats"
    assert result.sampling_end == SamplingEnd("stopped_early", reason)


def test_with_regret_a_winner_that_is_nearly_the_best_is_enough():
    script = [
        ScriptedLine("ab", 0.6),
        ScriptedLine("cd", 0.8),
    ]  # behind "ab" there may be another with 0.4
    for regret, text in ((0.0, "cd"), (0.11, "ab")):
        strategy = BestOfN(2, "maxprob", wave=1, regret=regret)
        assert run(strategy, request(), ScriptedBackend(script)).text == text


def test_a_vote_is_given_up_where_no_answer_leads():
    backend = ScriptedBackend([*"abcdefgh"])
    result = run(SelfConsistency(16, wave=3, give_up=0.25), request(), backend)
    assert len(result.candidates) == 6
    assert result.sampling_end.reason == "no answer had more than 25% of the votes"


@pytest.mark.parametrize(
    "construct",
    [
        lambda: BestOfN(0),
        lambda: BestOfN(True),
        lambda: BestOfN(4, "TokenEntropy"),
        lambda: BestOfN(4, "borda", power=-1),
        lambda: BestOfN(4, "maxprob", wave=0),
        lambda: BestOfN(4, "perplexity", wave=2),
        lambda: BestOfN(4, "maxprob", regret=float("nan")),
        lambda: SelfConsistency(0),
        lambda: SelfConsistency(4, give_up=1.0),
        lambda: SelfConsistency(4, settle=None, give_up=0.2),
        lambda: SelfConsistency(4, wave=0),
        lambda: SelfConsistency(4, method="TokenEntropy"),
        lambda: SelfConsistency(4, settle=0.5),
        lambda: SelfConsistency(4, settle=float("nan")),
    ],
)
def test_what_can_never_work_is_refused_at_construction(construct):
    with pytest.raises(ConfigurationError):
        construct()


def test_an_unknown_rule_is_refused_with_a_suggestion():
    with pytest.raises(UnknownMethodError, match="perplexity"):
        BestOfN(4, "perplexitty")


@pytest.mark.parametrize("strategy", [BestOfN(2), SelfConsistency(2)])
def test_samples_that_would_all_be_the_same_are_refused(strategy):
    with pytest.raises(ConfigurationError, match="temperature 0"):
        run(strategy, request(temperature=0), ScriptedBackend(["a"]))


def test_single_keeps_the_order_in_which_candidates_were_sampled():
    script = [ScriptedLine("b", 0.5), ScriptedLine("a", 0.9)]
    result = run(Single(), request(n=2), ScriptedBackend(script))
    assert [one.text for one in result.candidates] == ["b", "a"]


def test_a_best_that_came_to_no_end_of_its_own_is_uncertain():
    backend = ScriptedBackend([ScriptedLine("a long and doubtful answer", 0.3)])
    early = Request((63,), sampling={"temperature": 1.0}, early_stop=EarlyStop(1.0, window=4))
    result = run(BestOfN(2), early, backend)
    reason = "the answer ended by early_stop"
    assert result.decision == Decision("accepted", reason, is_uncertain=True)
    assert result.sampling_end == SamplingEnd("stopped_early", reason)
