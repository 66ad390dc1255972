"""Streams of a strategy's answer, on a backend that answers from a script."""

import numpy as np
import pytest

from tests.strategies.running import run
from uq_llm_integrations import (
    Abstain,
    BestOfN,
    ConfigurationError,
    EarlyStop,
    HighUncertaintyError,
    InvalidRequestError,
    Request,
    SamplingEnd,
    ScriptedBackend,
    ScriptedLine,
    Single,
    agreement,
    score,
    token_max,
    worst_window,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.strategies.base import Run
from uq_llm_integrations.strategies.streaming import stream_strategy

UNSURE = ScriptedLine("long and doubtful", 0.5)
SINGLE = Single()
DOUBTFUL = "worst_window(entropy, 4) > 2"


async def streamed(line, stop_if=None, strategy=SINGLE, methods=("perplexity",), **fields):
    run = Run(MeteredBackend(ScriptedBackend([line])), Request((63,), **fields), methods)
    return [piece async for piece in stream_strategy(strategy, run, stop_if)]


async def test_a_stream_has_the_result_that_the_strategy_gives_at_once():
    pieces = await streamed("Paris.")
    result = run(Single(), Request((63,)), ScriptedBackend(["Paris."]), ["perplexity"])
    assert [piece.text for piece in pieces] == list("Paris.")
    assert [piece.result is None for piece in pieces] == [True] * 5 + [False]
    assert pieces[-1].result.scores == result.scores
    assert pieces[-1].result.usage.generated_tokens == result.usage.generated_tokens


async def test_the_streamed_sample_is_not_generated_again():
    backend = ScriptedBackend(["Paris.", "Rome."])
    run = Run(MeteredBackend(backend), Request((63,)))
    pieces = [piece async for piece in stream_strategy(Single(), run)]
    assert pieces[-1].result.text == "Paris."
    assert len(backend.requests) == 1


async def test_methods_that_need_more_than_a_trace_are_scored_after_the_last_token():
    pieces = await streamed("Paris.", methods=("lexical_similarity",))
    assert pieces[-1].result.score("lexical_similarity").is_known


@pytest.mark.parametrize(
    "stop_if", [worst_window("entropy", 4) > 2, "worst_window(entropy, 4) > 2"]
)
async def test_a_stream_is_cut_off_where_its_tokens_become_uncertain(stop_if):
    pieces = await streamed(UNSURE, stop_if)
    assert "".join(piece.text for piece in pieces) == "l"
    result = pieces[-1].result
    assert (result.text, result.candidate.finish_reason) == ("l", "early_stop")
    assert result.sampling_end == SamplingEnd("stopped_early", DOUBTFUL)
    assert (result.decision.action, result.decision.is_uncertain) == ("accepted", True)
    assert result.decision.condition == DOUBTFUL
    assert result.usage.generated_tokens == 1


async def test_a_stream_that_is_certain_enough_comes_to_its_end():
    pieces = await streamed("Paris.", token_max("entropy") > 2)
    assert "".join(piece.text for piece in pieces) == "Paris."
    assert pieces[-1].result.decision.action == "accepted"
    assert pieces[-1].result.sampling_end.kind == "complete"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"stop_if": score("semantic_entropy") > 1}, "only the tokens so far"),
        ({"stop_if": agreement() < 0.5}, "there is only one"),
        ({"stop_if": score("entropy") > 1, "strategy": BestOfN(2)}, "only in the end"),
    ],
)
async def test_what_cannot_be_known_while_streaming_is_refused(arguments, error):
    with pytest.raises(ConfigurationError, match=error):
        await streamed("Paris.", **arguments)


async def test_a_stream_of_several_answers_is_refused():
    with pytest.raises(InvalidRequestError, match="a stream has one answer"):
        await streamed("Paris.", n=2)


async def test_an_early_stop_of_the_engine_ends_a_stream_too():
    pieces = await streamed(UNSURE, early_stop=EarlyStop(1.0, window=4))
    assert pieces[-1].result.candidate.finish_reason == "early_stop"
    assert "".join(piece.text for piece in pieces) == "long"


async def test_a_strategy_that_cannot_stream_gives_one_piece():
    (piece,) = await streamed("Paris.", strategy=BestOfN(2))
    assert piece.text == piece.result.text == "Paris."
    assert len(piece.result.candidates) == 2


async def test_an_answer_that_may_be_replaced_is_one_piece():
    strategy = Abstain(Single(), "perplexity > 1.5", "abstain", "I pass.")
    (piece,) = await streamed(UNSURE, strategy=strategy)
    assert piece.text == "I pass."


async def test_an_uncertain_stream_raises_after_its_last_token():
    run = Run(MeteredBackend(ScriptedBackend([UNSURE])), Request((63,)))
    stream = stream_strategy(Abstain(Single(), "perplexity > 1.5", "raise"), run)
    texts = []
    with pytest.raises(HighUncertaintyError) as caught:
        async for piece in stream:
            texts.append(piece.text)
    assert "".join(texts) == "long and doubtfu"
    assert caught.value.result.candidate.text == "long and doubtful"


async def test_the_traces_of_the_pieces_are_that_of_the_answer():
    pieces = await streamed("Paris.")
    whole = pieces[-1].result.trace
    np.testing.assert_array_equal(
        np.concatenate([piece.trace.logprob for piece in pieces]), whole.logprob
    )
