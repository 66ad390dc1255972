"""The step generator, on a backend that answers from a script."""

import asyncio

import numpy as np
import pytest

from uq_llm_integrations import (
    BestOfN,
    Boundary,
    ConfigurationError,
    EngineTimeoutError,
    HighUncertaintyError,
    ScriptedBackend,
    ScriptedLine,
    StepState,
    Stepwise,
    VLLMStepGenerator,
    agreement,
)

LINE = Boundary(strings=("\n",))


def generator(script, strategy, **options) -> VLLMStepGenerator:
    return VLLMStepGenerator(ScriptedBackend(script), strategy, **options)


def test_steps_are_streamed_as_they_are_kept():
    script = {"?": ["a\n", "b\n"], "?a\n": [ScriptedLine("end", 0.95), "e"]}
    steps = list(generator(script, Stepwise(2, boundary=LINE)).stream("?"))
    assert [(step.text, step.candidates) for step in steps] == [("a\n", 2), ("end", 2)]


def test_sync_and_async_give_the_same():
    script = {"?": ["a\n"], "?a\n": ["b"]}
    sync = generator(script, Stepwise(1, boundary=LINE)).generate("?")
    other = asyncio.run(generator(script, Stepwise(1, boundary=LINE)).agenerate("?"))
    assert (sync.text, sync.scores) == (other.text, other.scores)


def test_a_saved_state_is_gone_on_from():
    script = {"?": ["a\n"], "?a\n": ["b\n"], "?a\nb\n": ["c"]}
    whole = generator(script, Stepwise(1, boundary=LINE)).generate("?")

    async def first_state() -> StepState:
        steps = generator(script, Stepwise(1, boundary=LINE))
        async for state in steps.astates(await steps.astart("?")):
            return state
        raise AssertionError

    saved = asyncio.run(first_state()).to_json()
    resumed = generator(script, Stepwise(1, boundary=LINE)).resume(StepState.from_json(saved))
    assert resumed.text == whole.text == "a\nb\nc"
    assert resumed.scores == whole.scores
    np.testing.assert_array_equal(resumed.candidate.trace.entropy, whole.candidate.trace.entropy)


def test_truncated_text_of_what_was_generated_is_sliced():
    steps = generator({"?": ["first\n"], "?first\n": ["second"]}, Stepwise(1, boundary=LINE))
    steps.generate("?")
    sliced, foreign = steps.score_truncated_sequences("?", ["first\nsec", "third"])
    assert (sliced.is_sliced, sliced.usage.forward_passes, sliced.usage.saved_tokens) == (
        True,
        0,
        9,
    )
    assert (foreign.is_sliced, foreign.usage.scored_tokens) == (False, 5)
    assert steps.score_truncated_sequence("?", "fir").candidate.token_ids == tuple(b"fir")


def test_the_policy_decides_about_the_steps_of_a_state():
    steps = generator(
        {"?": ["a"]},
        Stepwise(1, boundary=LINE),
        uncertain_when="mean_nll > 0",
        on_high_uncertainty="abstain",
    )

    async def last_state() -> StepState:
        return [state async for state in steps.astates(await steps.astart("?"))][-1]

    assert steps.generate("?").decision.action == "abstained"
    assert steps.result(asyncio.run(last_state())).decision.action == "abstained"


@pytest.mark.parametrize(
    "construct",
    [
        lambda: generator(["a"], Stepwise(2), temperature=0),
        lambda: generator(["a"], Stepwise(2, branch_when=agreement() < 0.5)),
    ],
)
def test_what_can_never_work_is_refused_at_construction(construct):
    with pytest.raises(ConfigurationError):
        construct()


DOUBTED = {"uncertain_when": "mean_nll > 0", "abstention_text": "No idea."}


def test_a_stream_of_steps_raises_in_the_end():
    steps = generator({"?": ["a"]}, None, on_high_uncertainty="raise", **DOUBTED).stream("?")
    assert next(steps).text == "a"
    with pytest.raises(HighUncertaintyError):
        next(steps)


def test_a_stream_of_steps_that_abstains_shows_none_of_them():
    script = {"?": ["a\n"], "?a\n": ["b"]}
    steps = generator(script, Stepwise(1), on_high_uncertainty="abstain", **DOUBTED)
    assert [one.text for one in steps.stream("?")] == ["No idea."]
    accepted = steps.stream("?", uncertain_when="mean_nll > 9")
    assert [one.text for one in accepted] == ["a\n", "b"]


def test_the_policy_on_a_state_has_the_evidence_that_it_needs():
    steps = generator({"?": ["a"]}, Stepwise(1), uncertain_when="p_true > 99")
    state = asyncio.run(steps.astart("?"))
    state = asyncio.run(_last(steps.astates(state)))
    assert not steps.result(state).decision.is_uncertain


async def _last(states):
    return [one async for one in states][-1]


def test_a_timeout_holds_for_steps():
    steps = VLLMStepGenerator(ScriptedBackend(["a"], delay=0.5), timeout=0.01)
    with pytest.raises(EngineTimeoutError):
        steps.generate("?")


def test_evidence_about_steps_is_of_the_question_and_not_of_the_template():
    backend = ScriptedBackend({"?": ["a"]})
    VLLMStepGenerator(backend, Stepwise(1)).generate("?")
    assert backend.requests[-1].text == "?"


def test_another_strategy_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="not 'stepwise'"):
        generator({"?": ["a"]}, BestOfN(2))
    with pytest.raises(ConfigurationError, match="not 'stepwise'"):
        generator({"?": ["a"]}, None).generate("?", strategy="best_of_n")


def test_a_stream_of_steps_ends_where_they_become_uncertain():
    script = {"?": ["a\n"], "?a\n": [ScriptedLine("b\n", 0.2)], "?a\nb\n": ["c"]}
    steps = generator(script, Stepwise(1, boundary=LINE), stop_if="token_max(entropy) > 4")
    assert [one.text for one in steps.stream("?")] == ["a\n", "b\n"]
    state = asyncio.run(_last(steps.astates(asyncio.run(steps.astart("?")))))
    assert (state.finish_reason, state.text) == ("early_stop", "a\nb\n")
    result = steps.generate("?")
    assert (result.text, result.sampling_end.kind) == ("a\nb\n", "stopped_early")
