"""Given and truncated text, scored on a backend that answers from a script."""

import pytest

from uq_llm_integrations import (
    ConfigurationError,
    GivenText,
    HighUncertaintyError,
    MethodOptions,
    Request,
    ScriptedBackend,
    UncertaintyModel,
    run_strategy,
    score_truncated_sequence,
)
from uq_llm_integrations.truncation import score_truncated_texts, truncated

PROMPT = tuple(b"?")
BACKEND = ScriptedBackend(["first\nsecond"])


@pytest.fixture
def answer():
    (candidate,) = BACKEND.run(BACKEND.generate(Request(PROMPT)))
    return candidate


def generated(text):
    backend = ScriptedBackend([text])
    return backend.run(backend.generate(Request(PROMPT)))


@pytest.mark.parametrize("text", ["naï", "na"])
def test_a_cut_never_lies_within_a_character(text):
    cut = score_truncated_sequence(BACKEND, PROMPT, text, generated("naïve"))
    assert cut.candidate.token_ids == tuple(text.encode())


def test_truncated_text_of_what_was_generated_is_sliced(answer):
    sliced = score_truncated_sequence(BACKEND, PROMPT, "first\nsec", [answer])
    assert (sliced.is_sliced, sliced.usage.forward_passes, sliced.usage.saved_tokens) == (
        True,
        0,
        9,
    )
    assert sliced.candidate.text == "first\nsec"


def test_other_text_is_scored_by_a_pass(answer):
    foreign = score_truncated_sequence(BACKEND, PROMPT, "third", [answer])
    assert (foreign.is_sliced, foreign.usage.scored_tokens) == (False, 5)


async def test_several_texts_come_back_in_their_order(answer):
    texts = ["third", "fir", tuple(b"first")]
    found = await score_truncated_texts(BACKEND, Request(PROMPT), texts, [answer])
    kept = [bytes(one.candidate.token_ids) for one in found]
    assert kept == [b"third", b"fir", b"first"]
    assert [one.is_sliced for one in found] == [False, True, True]


async def test_methods_are_served_as_the_options_say(answer):
    backend = ScriptedBackend(["sampled"])
    await score_truncated_texts(
        backend,
        Request(PROMPT),
        ["first"],
        [answer],
        ["lexical_similarity"],
        MethodOptions(samples=3),
    )
    assert [one.n for one in backend.requests] == [3]


def test_a_cut_beyond_the_end_is_refused(answer):
    with pytest.raises(ConfigurationError, match="cannot keep 99 tokens"):
        truncated(answer, 99)


async def test_a_given_text_is_scored_as_a_continuation():
    request = Request(PROMPT, text="?")
    result = await run_strategy(GivenText(tuple(b"Paris")), request, BACKEND, ["perplexity"])
    assert result.score("perplexity").value == pytest.approx(1 / 0.9)
    assert (result.candidate.token_ids, result.usage.scored_tokens) == (tuple(b"Paris"), 5)
    assert result.candidate.finish_reason is None


def test_each_text_is_decided_about(answer):
    model = UncertaintyModel(
        BACKEND, uncertain_when="maxprob > 0.4", on_high_uncertainty="abstain", methods="entropy"
    )
    sure, unsure = model.score_truncated("?", ["fir", "third"], [answer])
    assert (sure.decision.action, unsure.decision.action) == ("accepted", "abstained")
    assert unsure.decision.text == model.settings.abstention_text
    assert set(sure.scores) >= {"maxprob", *model.methods}


def test_an_error_about_one_text_keeps_the_results_of_all(answer):
    raising = {"uncertain_when": "maxprob > 0.4", "on_high_uncertainty": "raise"}
    model = UncertaintyModel(BACKEND, **raising)
    with pytest.raises(HighUncertaintyError) as caught:
        model.score_truncated("?", ["third", "fir"], [answer])
    assert [one.candidate.text for one in caught.value.completed.values()] == ["third", "fir"]
