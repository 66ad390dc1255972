"""Step-wise generation, on a backend that answers from a script."""

import asyncio
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies.running import run
from uq_llm_integrations import (
    Abstain,
    Boundary,
    ConfigurationError,
    Decision,
    EarlyStop,
    EngineError,
    InvalidRequestError,
    Request,
    Retry,
    SamplingEnd,
    ScriptedBackend,
    ScriptedLine,
    Single,
    StepState,
    Stepwise,
    UncertaintyModel,
    VLLMStepGenerator,
    agreement,
    run_strategy,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.strategies.base import Run

LINE = Boundary(strings=("\n",))


SAMPLING = {"temperature": 0.7, "max_tokens": 256}


def question(**sampling) -> Request:
    return Request(tuple(b"?"), sampling=SAMPLING | sampling)


def generate(script, strategy, **sampling):
    return run(strategy, question(**sampling), ScriptedBackend(script))


def steps_of(script, strategy):
    return asyncio.run(last_state(script, strategy)).steps


async def last_state(script, strategy):
    state, way = StepState(tuple(b"?")), Run(MeteredBackend(ScriptedBackend(script)), question())
    while not state.is_finished:
        state = await strategy.advance(way, state)
    return state


def test_the_best_of_each_step_is_kept_and_gone_on_from():
    script = {
        "?": [ScriptedLine("bad\n", 0.5), ScriptedLine("first\n", 0.9)],
        "?first\n": [ScriptedLine("second", 0.9), ScriptedLine("worse", 0.6)],
    }
    result = generate(script, Stepwise(2, boundary=LINE))
    assert result.text == "first\nsecond"
    assert result.candidate.token_ids == tuple(b"first\nsecond")
    assert result.scores[0]["perplexity"].value == pytest.approx(1 / 0.9)
    assert result.usage.generated_tokens == 4 + 6 + 6 + 5
    assert result.candidate.finish_reason == "stop"


def test_steps_are_kept_one_by_one():
    script = {"?": ["a\n", "b\n"], "?a\n": [ScriptedLine("end", 0.95), "e"]}
    steps = steps_of(script, Stepwise(2, boundary=LINE))
    assert [(step.text, step.candidates) for step in steps] == [("a\n", 2), ("end", 2)]


def test_more_candidates_are_sampled_only_where_the_first_is_uncertain():
    script = {
        "?": [ScriptedLine("sure\n", 0.99)],
        "?sure\n": [
            ScriptedLine("hm\n", 0.5),
            ScriptedLine("yes\n", 0.9),
            ScriptedLine("no\n", 0.6),
        ],
        "?sure\nyes\n": [ScriptedLine("end", 0.99)],
    }
    strategy = Stepwise(3, boundary=LINE, branch_when="mean_nll > 0.3")
    result = generate(script, strategy)
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
    stepped = steps_of(script, Stepwise(1, boundary=boundary))
    assert [step.text for step in stepped] == steps


def test_a_saved_state_is_gone_on_from():
    script = {"?": ["a\n"], "?a\n": ["b\n"], "?a\nb\n": ["c"]}
    strategy = Stepwise(1, boundary=LINE)
    whole = generate(script, strategy)

    async def resumed():
        way = Run(MeteredBackend(ScriptedBackend(script)), question())
        state = await strategy.advance(way, StepState(tuple(b"?")))
        return await strategy.finish(way, StepState.from_json(state.to_json()))

    resumed = asyncio.run(resumed())
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
    result = generate(["endless" * 9], strategy, max_tokens=max_tokens)
    assert 0 < len(result.candidate.token_ids) <= max_tokens
    assert result.usage.generated_tokens <= budget
    assert len(result.candidate.token_ids) <= max_steps * step_tokens
    backend = ScriptedBackend(["endless" * 9])
    other = asyncio.run(run_strategy(strategy, question(max_tokens=max_tokens), backend))
    assert other.text == result.text
    assert asdict(other.usage) | {"seconds": 0} == asdict(result.usage) | {"seconds": 0}


def test_a_failed_candidate_never_wins_a_step():
    script = {"?": [EngineError("broken"), "a\n"], "?a\n": ["end", EngineError("broken")]}
    assert generate(script, Stepwise(2, boundary=LINE)).text == "a\nend"


def test_a_step_that_fails_loses_none_before_it():
    script = {"?": ["a\n"], "?a\n": [EngineError("broken")]}
    result = generate(script, Stepwise(1, boundary=LINE))
    assert (result.text, str(result.candidate.error)) == ("a\n", "broken")
    assert result.decision == Decision(condition="a step failed: broken", is_uncertain=True)
    assert result.sampling_end == SamplingEnd("failed", "a step failed: broken")


def test_a_step_that_was_stopped_early_makes_the_answer_uncertain():
    unsure = Request(tuple(b"?"), sampling=SAMPLING, early_stop=EarlyStop(1.0, window=2))
    result = run(
        Stepwise(1, boundary=LINE), unsure, ScriptedBackend([ScriptedLine("never mind\n", 0.3)])
    )
    assert (result.candidate.finish_reason, result.decision.is_uncertain) == ("early_stop", True)
    assert result.sampling_end.kind == "stopped_early"


def test_a_stop_string_of_the_requests_own_ends_it_and_is_not_shown():
    script = {"?": ["a\n"], "?a\n": ["b; c"]}
    result = generate(script, Stepwise(1, boundary=LINE), stop=[";"])
    assert (result.text, result.candidate.stop_reason) == ("a\nb", ";")
    assert result.candidate.token_ids == tuple(b"a\nb;")


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
        lambda: generate(["a"], Stepwise(2), temperature=0),
        lambda: generate(["a"], Stepwise(2, branch_when=agreement() < 0.5)),
    ],
)
def test_what_can_never_work_is_refused(construct):
    with pytest.raises(ConfigurationError):
        construct()


JSON = {"structured_outputs": {"json": {"type": "object"}}}


def test_a_grammar_is_refused_since_each_step_would_begin_it_anew():
    backend, named = ScriptedBackend(["{"]), "structured_outputs.*Stepwise"
    wrapped = Abstain(Retry(Stepwise(1), "entropy > 1"), "entropy > 2")
    for strategy in (Stepwise(1), wrapped):
        with pytest.raises(ConfigurationError, match=named):
            UncertaintyModel(backend, strategy=strategy, **JSON)
        with pytest.raises(InvalidRequestError, match=named):
            run(strategy, question(**JSON), backend)
    with pytest.raises(ConfigurationError, match=named):
        VLLMStepGenerator(backend, **JSON)
    assert not backend.requests
    UncertaintyModel(backend, strategy=Retry(Single(), "entropy > 1"), **JSON)


def test_a_minimum_of_tokens_is_one_of_the_answer_and_not_of_each_step():
    script = {"?": ["one two end"], "?one ": ["two end"], "?one two ": ["end"]}
    backend = ScriptedBackend(script)
    run(Stepwise(1, boundary=Boundary((), max_tokens=4)), question(min_tokens=6), backend)
    assert [one.sampling["min_tokens"] for one in backend.requests] == [4, 2, 0]


def test_a_stop_string_ends_the_answer_where_two_steps_make_it_whole():
    script = {"?": ["thought\n"], "?thought\n": ["Observation: 3"]}
    result = generate(script, Stepwise(1, boundary=LINE), stop=["\nObservation:"])
    assert (result.text, result.candidate.stop_reason) == ("thought", "\nObservation:")
    assert result.candidate.token_ids == tuple(b"thought\nObservation:")
    shown = {"stop": ["\nObservation:"], "include_stop_str_in_output": True}
    assert generate(script, Stepwise(1, boundary=LINE), **shown).text == "thought\nObservation:"


def test_a_held_back_text_is_saved_with_the_state():
    async def saved():
        way = Run(MeteredBackend(ScriptedBackend(["a\n"])), question(stop=["\n\n"]))
        return await Stepwise(1, boundary=LINE).advance(way, StepState(tuple(b"?")))

    state = StepState.from_json(asyncio.run(saved()).to_json())
    assert (state.text, state.held, state.candidate().text) == ("a", "\n", "a\n")
    assert [step.text for step in state.steps] == ["a"]
