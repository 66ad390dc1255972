"""Step-wise generation, on a backend that answers from a script."""

import asyncio
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations.backends.scripted import ScriptedBackend, ScriptedLine
from uq_llm_integrations.errors import ConfigurationError, EngineError
from uq_llm_integrations.strategies.boundaries import Boundary
from uq_llm_integrations.strategies.quantities import agreement, score
from uq_llm_integrations.strategies.step_state import StepState
from uq_llm_integrations.strategies.stepwise import Stepwise, VLLMStepGenerator

LINE = Boundary(strings=("\n",))


def generator(script, strategy, **sampling) -> VLLMStepGenerator:
    return VLLMStepGenerator(ScriptedBackend(script), strategy, **sampling)


def test_the_best_of_each_step_is_kept_and_gone_on_from():
    script = {
        "?": [ScriptedLine("bad\n", 0.5), ScriptedLine("first\n", 0.9)],
        "?first\n": [ScriptedLine("second", 0.9), ScriptedLine("worse", 0.6)],
    }
    result = generator(script, Stepwise(2, boundary=LINE)).generate("?")
    assert result.text == "first\nsecond"
    assert result.candidate.token_ids == tuple(b"first\nsecond")
    assert result.scores[0]["perplexity"].value == pytest.approx(-np.log(0.9))
    assert result.usage.generated_tokens == 4 + 6 + 6 + 5
    assert result.candidate.finish_reason == "stop"


def test_steps_are_streamed_as_they_are_kept():
    script = {"?": ["a\n", "b\n"], "?a\n": [ScriptedLine("end", 0.95), "e"]}
    steps = list(generator(script, Stepwise(2, boundary=LINE)).stream("?"))
    assert [(step.text, step.candidates) for step in steps] == [("a\n", 2), ("end", 2)]


def test_more_candidates_are_drawn_only_where_the_first_is_uncertain():
    script = {
        "?": [ScriptedLine("sure\n", 0.99)],
        "?sure\n": [
            ScriptedLine("hm\n", 0.5),
            ScriptedLine("yes\n", 0.9),
            ScriptedLine("no\n", 0.6),
        ],
        "?sure\nyes\n": [ScriptedLine("end", 0.99)],
    }
    strategy = Stepwise(3, boundary=LINE, branch_when=score("perplexity") > 0.3)
    result = generator(script, strategy).generate("?")
    assert result.text == "sure\nyes\nend"
    assert result.usage.generated_tokens == 5 + (3 + 4 + 3) + 3


@pytest.mark.parametrize(
    ("boundary", "steps"),
    [
        (Boundary(strings=(), pattern=r"\d\."), ["one 1.", " two 2.", " end"]),
        (Boundary(strings=(), max_tokens=8), ["one 1. t", "wo 2. en", "d"]),
        (Boundary(strings=(), test=lambda text: text.endswith("o")), ["o", "ne 1. two", " 2. end"]),
        (Boundary(strings=("1",), thinking=("one", " 2")), ["one", " 1", ". two 2", ". end"]),
    ],
)
def test_boundaries(boundary, steps):
    text = "one 1. two 2. end"
    script = {f"?{text[:end]}": [text[end:]] for end in range(len(text))}
    stepped = list(generator(script, Stepwise(1, boundary=boundary)).stream("?"))
    assert [step.text for step in stepped] == steps


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
    with pytest.raises(ConfigurationError, match="no saved state"):
        StepState.from_json('{"prompt_ids": [1]}')


@given(
    n=st.integers(1, 3),
    step_tokens=st.integers(1, 5),
    max_tokens=st.integers(1, 20),
    max_steps=st.integers(1, 6),
    budget=st.integers(15, 60),
)
def test_budgets_are_never_exceeded(n, step_tokens, max_tokens, max_steps, budget):
    boundary = Boundary(strings=(), max_tokens=step_tokens)
    strategy = Stepwise(n, boundary=boundary, max_steps=max_steps, token_budget=budget)
    steps = generator(["endless" * 9], strategy, max_tokens=max_tokens)
    result = steps.generate("?")
    assert 0 < len(result.candidate.token_ids) <= max_tokens
    assert result.usage.generated_tokens <= budget
    assert len(result.candidate.token_ids) <= max_steps * step_tokens
    other = asyncio.run(generator(["endless" * 9], strategy, max_tokens=max_tokens).agenerate("?"))
    assert other.text == result.text
    assert asdict(other.usage) | {"seconds": 0} == asdict(result.usage) | {"seconds": 0}


def test_a_failed_candidate_never_wins_a_step():
    script = {"?": [EngineError("broken"), "a\n"], "?a\n": ["end", EngineError("broken")]}
    assert generator(script, Stepwise(2, boundary=LINE)).generate("?").text == "a\nend"


def test_a_step_that_fails_loses_none_before_it():
    script = {"?": ["a\n"], "?a\n": [EngineError("broken")]}
    result = generator(script, Stepwise(1, boundary=LINE)).generate("?")
    assert (result.text, str(result.candidate.error)) == ("a\n", "broken")
    assert result.decision.condition == "a step failed: broken"


def test_a_stop_string_of_the_requests_own_ends_it_and_is_not_shown():
    script = {"?": ["a\n"], "?a\n": ["b; c"]}
    result = generator(script, Stepwise(1, boundary=LINE), stop=[";"]).generate("?")
    assert (result.text, result.candidate.stop_reason) == ("a\nb", ";")
    assert result.candidate.token_ids == tuple(b"a\nb;")


def test_a_cut_never_lies_within_a_character():
    steps = generator({"?": ["naïve"]}, Stepwise(1, boundary=LINE))
    steps.generate("?")
    assert steps.score_truncated_sequence("?", "naï").candidate.token_ids == tuple("naï".encode())
    assert steps.score_truncated_sequence("?", "na").candidate.token_ids == tuple(b"na")


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


@pytest.mark.parametrize(
    "construct",
    [
        lambda: Boundary(strings=()),
        lambda: Boundary(strings=("",)),
        lambda: Boundary(strings="\n"),
        lambda: Boundary(pattern="("),
        lambda: Boundary(pattern="x*"),
        lambda: Boundary(max_tokens=0),
        lambda: Stepwise(0),
        lambda: Stepwise(by="TokenEntropy"),
        lambda: Stepwise(max_steps=0),
        lambda: Stepwise(4, boundary=Boundary(max_tokens=10), token_budget=39),
        lambda: generator(["a"], Stepwise(2), temperature=0),
        lambda: generator(["a"], Stepwise(2, branch_when=agreement() < 0.5)),
    ],
)
def test_what_can_never_work_is_refused_at_construction(construct):
    with pytest.raises(ConfigurationError):
        construct()
