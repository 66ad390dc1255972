"""Streams of a strategy's answer, on a backend that answers from a script."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies.running import run
from uq_llm_integrations import (
    Abstain,
    BestOfN,
    Boundary,
    Candidate,
    ConfigurationError,
    EarlyStop,
    EngineError,
    HighUncertaintyError,
    InvalidRequestError,
    Request,
    RetryErrors,
    SamplingEnd,
    ScriptedBackend,
    ScriptedLine,
    Single,
    Stepwise,
    UncertaintyModel,
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


LINES = {"?": ["one\n", ScriptedLine("eins\n", 0.5)], "?one\n": ["two\n"], "?one\ntwo\n": ["three"]}
STEPS = Stepwise(2, boundary=Boundary(("\n",)))


def stepping(script=LINES, **fields) -> Run:
    request = Request((63,), sampling={"temperature": 0.7, **fields})
    return Run(MeteredBackend(ScriptedBackend(script)), request, ("perplexity",))


async def pieces_of(strategy, way, stop_if=None):
    return [piece async for piece in stream_strategy(strategy, way, stop_if)]


async def test_a_stream_of_steps_has_a_piece_for_each_and_the_result_of_a_call():
    pieces = await pieces_of(STEPS, stepping())
    assert [piece.text for piece in pieces] == ["one\n", "two\n", "three"]
    assert [piece.result is None for piece in pieces] == [True, True, False]
    streamed, called = pieces[-1].result, await STEPS(stepping())
    assert (streamed.text, streamed.scores) == (called.text, called.scores)
    assert streamed.usage.generated_tokens == called.usage.generated_tokens
    assert b"".join(bytes(piece.token_ids) for piece in pieces) == b"one\ntwo\nthree"
    traces = [piece.trace.logprob for piece in pieces]
    np.testing.assert_array_equal(np.concatenate(traces), streamed.trace.logprob)


async def test_a_stream_of_steps_does_no_work_that_nobody_has_asked_for():
    way = stepping()
    stream = stream_strategy(STEPS, way)
    assert (await anext(stream)).text == "one\n"
    await stream.aclose()
    assert len(way.backend.backend.requests) == 1


async def test_a_stream_of_steps_is_cut_off_where_they_become_uncertain():
    doubtful = {**LINES, "?one\n": [ScriptedLine("two\n", 0.2)]}
    pieces = await pieces_of(STEPS, stepping(doubtful), "token_max(entropy) > 4")
    assert [piece.text for piece in pieces] == ["one\n", "two\n"]
    result = pieces[-1].result
    assert (result.text, result.candidate.finish_reason) == ("one\ntwo\n", "early_stop")
    assert result.sampling_end == SamplingEnd("stopped_early", "token_max(entropy) > 4")
    assert result.decision.is_uncertain


async def test_what_wraps_steps_decides_about_all_of_them():
    noted = await pieces_of(Abstain(STEPS, "perplexity > 1"), stepping())
    assert [piece.text for piece in noted] == ["one\n", "two\n", "three"]
    assert noted[-1].result.decision.is_uncertain
    (piece,) = await pieces_of(Abstain(STEPS, "perplexity > 1", "abstain", "I pass."), stepping())
    assert piece.text == "I pass."
    (piece,) = await pieces_of(RetryErrors(STEPS), stepping())
    assert piece.text == "one\ntwo\nthree"


async def test_a_step_that_fails_ends_its_stream_and_is_said_in_the_result():
    failing = {"?": ["one\n"], "?one\n": [EngineError("broken")]}
    pieces = await pieces_of(STEPS, stepping(failing))
    assert "".join(piece.text for piece in pieces) == "one\n"
    assert pieces[-1].result.sampling_end == SamplingEnd("failed", "a step failed: broken")
    with pytest.raises(EngineError, match="broken"):
        await pieces_of(STEPS, stepping([EngineError("broken")]))


class Reciting(ScriptedBackend):
    """Goes on with a text from wherever the prompt has got to in it, between any two bytes."""

    def __init__(self, text: str) -> None:
        super().__init__(["unused"])
        self._whole = text.encode()

    async def generate(self, request, monitor=None):
        rest = self._whole[len(request.prompt_ids) - 1 :]
        ids, reason, stop = _ended(rest, request)
        text = ids.decode(errors="replace")
        if stop and not request.sampling.get("include_stop_str_in_output"):
            text = text.removesuffix(stop)
        (scored,) = await self.score_all(request.prompt_ids, [ids])
        return [Candidate(request.prompt_ids, tuple(ids), text, scored.trace, reason, stop)]


def _ended(rest: bytes, request: Request):
    """The bytes up to where a stop string, a boundary or the number of tokens ends them."""
    most = request.sampling["max_tokens"]
    for count in range(1, min(len(rest), most) + 1):
        text = rest[:count].decode(errors="replace")
        for stop in request.sampling.get("stop") or ():
            if text.endswith(stop):
                return rest[:count], "stop", stop
        if request.until and request.until(text):
            return rest[:count], "boundary", None
    return rest[:most], "length" if len(rest) > most else "stop", None


@given(
    text=st.text(st.sampled_from("ab\n; é日🙂"), min_size=1, max_size=24),
    step=st.integers(1, 5),
    stop=st.lists(st.sampled_from(["\n\n", "a\nb", "; é", "日🙂", "bb"]), max_size=2),
    max_tokens=st.integers(1, 60),
)
def test_steps_add_up_to_what_one_request_gives(text, step, stop, max_tokens):
    """Whatever a step cuts through: characters, stop strings, or nothing."""
    backend, strategy = Reciting(text), Stepwise(1, boundary=Boundary(("\n",), max_tokens=step))
    request = Request((63,), sampling={"max_tokens": max_tokens, "stop": stop})
    once = run(Single(), request, backend)
    pieces = backend.run(pieces_of(strategy, Run(MeteredBackend(backend), request)))
    result = pieces[-1].result
    assert (result.text, result.candidate.token_ids) == (once.text, once.candidate.token_ids)
    assert "".join(piece.text for piece in pieces) == once.text


@pytest.mark.parametrize("strategy", [SINGLE, Stepwise(1, boundary=Boundary((". ",)))])
async def test_what_was_drawn_of_a_closed_stream_is_handed_on(strategy):
    drawn = []
    backend = ScriptedBackend({"?": ["One. "], "?One. ": ["Two. "], "?One. Two. ": ["Three."]})
    prompt, methods = Request((63,)), ("perplexity", "mc_entropy")
    run = Run(MeteredBackend(backend), prompt, methods, on_closed=drawn.append)
    stream = stream_strategy(strategy, run)
    shown = await anext(stream)
    await stream.aclose()
    (result,) = drawn
    assert result.text.startswith(shown.text)
    assert result.candidate.finish_reason == "abort" and result.decision.is_uncertain
    assert result.usage.generated_tokens == len(result.candidate.token_ids) > 0
    assert result.score("perplexity").is_known
    assert "closed" in result.score("mc_entropy").reason


async def test_what_was_drawn_of_a_cancelled_stream_is_handed_on():
    class Stalling(ScriptedBackend):
        async def stream(self, request):
            async for piece in super().stream(request):
                yield piece
                await asyncio.sleep(60)

    drawn = []
    run = Run(MeteredBackend(Stalling(["Paris."])), Request((63,)), on_closed=drawn.append)
    stream = stream_strategy(Single(), run)
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert [result.text for result in drawn] == ["P"]


async def test_a_report_that_fails_is_logged_and_does_not_keep_a_stream_open(caplog):
    def fail(result):
        raise RuntimeError("nobody is there")

    run = Run(MeteredBackend(ScriptedBackend(["Paris."])), Request((63,)), on_closed=fail)
    stream = stream_strategy(Single(), run)
    await anext(stream)
    await stream.aclose()
    assert "nobody is there" in caplog.text


async def test_a_whole_stream_is_not_reported_as_closed():
    drawn = []
    run = Run(MeteredBackend(ScriptedBackend(["Paris."])), Request((63,)), on_closed=drawn.append)
    stream = stream_strategy(Single(), run)
    pieces = [await anext(stream) for _ in "Paris."]
    await stream.aclose()
    assert pieces[-1].result.text == "Paris." and drawn == []


@pytest.mark.parametrize("stop_if", [DOUBTFUL, worst_window("entropy", 4) > 2])
def test_an_answer_that_is_not_streamed_ends_where_its_stream_does(stop_if):
    model = UncertaintyModel(
        ScriptedBackend([UNSURE] * 3), stop_if=stop_if, uncertain_when=DOUBTFUL
    )
    *_, last = model.stream([{"role": "user", "content": "?"}])
    for result in (model.generate("?"), model.chat([{"role": "user", "content": "?"}]).result):
        assert result.text == last.result.text == "l"
        assert result.sampling_end.kind == "stopped_early"
        assert result.decision.is_uncertain
