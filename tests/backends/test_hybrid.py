"""One backend that generates, another that looks inside."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from uq_llm_integrations import errors
from uq_llm_integrations.backends.huggingface.backend import HuggingFaceBackend
from uq_llm_integrations.backends.hybrid import HybridBackend
from uq_llm_integrations.backends.scripted import ScriptedBackend
from uq_llm_integrations.records import Inspection, Internals, Request

TEXTS = [(1, 2, 3), (4,)]


class SleepingGenerator(ScriptedBackend):
    """Notes what it does in a log that it shares with its scorer."""

    def __init__(self, log: list[str], **arguments) -> None:
        super().__init__(["yes"], **arguments)
        self.log = log

    async def generate(self, request, watch=None):
        self.log.append("generate")
        candidates = await super().generate(request, watch)
        self.log.append("generated")
        return candidates

    async def sleep(self) -> None:
        self.log.append("sleep")

    async def wake(self) -> None:
        self.log.append("wake")


class Scorer(ScriptedBackend):
    """Looks inside nothing: each internals' log-probabilities are the token ids."""

    def __init__(self, log=None, *, fails: bool = False, **changes) -> None:
        super().__init__(["unused"])
        self.log, self.fails, self.changes = log if log is not None else [], fails, changes

    @property
    def capabilities(self):
        return replace(super().capabilities, **self.changes)

    async def inspect_all(self, texts, inspection):
        self.log.append("score")
        await asyncio.sleep(0.05)
        if self.fails:
            raise errors.EngineError("out of memory")
        return [Internals(np.array(ids, np.float32)) for ids in texts]

    def unload(self) -> None:
        self.log.append("unload")


class Uppercase(Scorer):
    async def encode(self, text, *, chat=False):
        return await super().encode(text.replace("Paris", "PARIS"))


async def test_tokens_come_from_the_generator_and_internals_from_the_scorer():
    generator, scorer = ScriptedBackend(["yes"]), Scorer()
    hybrid = HybridBackend(generator, scorer)
    assert hybrid.capabilities.why_no_internals is None
    (candidate,) = await hybrid.generate(Request(await hybrid.encode("ok?")))
    assert candidate.text == "yes"
    assert [piece.text async for piece in hybrid.stream(Request((65,)))] == ["y", "e", "s"]
    assert (await hybrid.score((65,), (66,))).token_ids == (66,)
    internals = await hybrid.inspect_all(TEXTS, Inspection())
    assert [tuple(one.logprob) for one in internals] == TEXTS
    assert not scorer.requests


async def test_another_tokenizer_or_vocabulary_is_refused_on_first_use():
    hybrid = HybridBackend(ScriptedBackend(["yes"]), Uppercase())
    message = r"'The capital of France is Paris.': from token 26 on it is \[97, .* and \[65, "
    with pytest.raises(errors.ConfigurationError, match=message):
        await hybrid.generate(Request((65,)))
    hybrid = HybridBackend(ScriptedBackend(["yes"]), Scorer(vocabulary_size=300))
    with pytest.raises(errors.ConfigurationError, match="256 tokens and the scorer 300"):
        await hybrid.inspect_all(TEXTS, Inspection())


def test_backends_that_cannot_do_their_part_are_refused_at_once():
    able = SleepingGenerator([])
    with pytest.raises(errors.ConfigurationError, match="shows no hidden states"):
        HybridBackend(able, Scorer(why_no_internals="it shows no hidden states"))
    with pytest.raises(errors.ConfigurationError, match="ScriptedBackend cannot"):
        HybridBackend(ScriptedBackend([]), Scorer(), sequential=True)
    assert HybridBackend(able, Scorer(), sequential=True)


@pytest.mark.parametrize("fails", [False, True])
def test_in_turns_the_generator_sleeps_while_the_scorer_works(fails):
    log = []
    hybrid = HybridBackend(SleepingGenerator(log), Scorer(log, fails=fails), sequential=True)
    if fails:
        with pytest.raises(errors.EngineError):
            hybrid.run(hybrid.inspect_all(TEXTS, Inspection()))
    else:
        assert len(hybrid.run(hybrid.inspect_all(TEXTS, Inspection()))) == 2
    assert log == ["sleep", "score", "unload", "wake"]
    assert hybrid.run(hybrid.generate(Request((65,))))


async def test_generation_waits_for_the_scorer_and_the_scorer_for_generation():
    log = []
    hybrid = HybridBackend(SleepingGenerator(log, delay=0.05), Scorer(log), sequential=True)

    async def later(seconds, coroutine):
        await asyncio.sleep(seconds)
        return await coroutine

    await hybrid.encode("warm")
    await asyncio.gather(
        hybrid.generate(Request((65,))),
        hybrid.generate(Request((65,))),
        later(0.02, hybrid.inspect_all(TEXTS, Inspection())),
        later(0.03, hybrid.generate(Request((65,)))),
    )
    together = ["generate", "generate", "generated", "generated"]
    assert log == [*together, "sleep", "score", "unload", "wake", "generate", "generated"]


async def test_a_cancelled_scorer_leaves_the_generator_awake():
    log = []
    hybrid = HybridBackend(SleepingGenerator(log), Scorer(log), sequential=True)
    task = asyncio.create_task(hybrid.inspect_all(TEXTS, Inspection()))
    while "score" not in log:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pieces = [piece async for piece in hybrid.stream(Request((65,)))]
    assert pieces[-1].candidate.text == "yes"
    assert log[:4] == ["sleep", "score", "unload", "wake"]


@pytest.mark.engine
def test_vllms_tokens_are_inspected_by_the_hugging_face_model(backend, capital_ids):
    """The scorer's log-probabilities are those that vLLM generated with."""
    with HuggingFaceBackend("smollm2") as scorer:
        hybrid = HybridBackend(backend, scorer)
        request = Request(capital_ids, sampling={"temperature": 0, "max_tokens": 8})
        (candidate,) = hybrid.run(hybrid.generate(request))
        text = capital_ids + candidate.token_ids
        (internals,) = hybrid.run(hybrid.inspect_all([text], Inspection((-1,), "bands")))
    generated = internals.logprob[len(capital_ids) - 1 :]
    np.testing.assert_allclose(generated, candidate.trace.logprob, rtol=0, atol=2e-3)
    assert internals.hidden[-1].shape == (len(text), 576)
    assert internals.attention_last.shape == (30, 9, len(text))
