"""One backend that generates, another that is inspected."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import eventually
from uq_llm_integrations import (
    Activations,
    HuggingFaceBackend,
    HybridBackend,
    Inspection,
    Request,
    ScriptedBackend,
    errors,
)

TEXTS = [(1, 2, 3), (4,)]


SWITCHES = ["sleep", "score", "unload", "wake"]


class SleepingGenerator(ScriptedBackend):
    """Notes what it does in a log that it shares with its scorer; `fails` names what it cannot."""

    def __init__(self, log: list[str], *, fails: str = "", **arguments) -> None:
        super().__init__(["yes"], **arguments)
        self.log, self.fails = log, fails

    async def generate(self, request, monitor=None):
        self.log.append("generate")
        candidates = await super().generate(request, monitor)
        self.log.append("generated")
        return candidates

    async def encode(self, text, *, chat=False):
        assert self.is_awake
        return await super().encode(text, chat=chat)

    @property
    def is_awake(self) -> bool:
        return [word for word in ("wake", *self.log) if word in ("sleep", "wake")][-1] == "wake"

    async def sleep(self) -> None:
        self._do("sleep")

    async def wake(self) -> None:
        self._do("wake")

    def _do(self, what: str) -> None:
        if self.fails == what:
            raise errors.EngineError(f"cannot {what}")
        self.log.append(what)


class Scorer(ScriptedBackend):
    """A scorer without a model: the log-probabilities of its activations are the token ids.

    It fails at an empty text, and works for as long as it is `busy`.
    """

    busy = False

    def __init__(self, log=None, **changes) -> None:
        super().__init__(["unused"])
        self.log, self.changes = log if log is not None else [], changes

    @property
    def capabilities(self):
        return replace(super().capabilities, **self.changes)

    async def inspect_all(self, texts, inspection):
        self.log.append("score")
        while self.busy:
            await asyncio.sleep(0.001)
        if () in texts:
            raise errors.EmptyPromptError
        return [Activations(np.array(ids, np.float32)) for ids in texts]

    def unload(self) -> None:
        self.log.append("unload")


class Uppercase(Scorer):
    async def encode(self, text, *, chat=False):
        return await super().encode(text.replace("Paris", "PARIS"))


async def test_tokens_come_from_the_generator_and_activations_from_the_scorer():
    generator, scorer = ScriptedBackend(["yes"]), Scorer()
    hybrid = HybridBackend(generator, scorer)
    assert hybrid.capabilities.why_no_activations is None
    (candidate,) = await hybrid.generate(Request(await hybrid.encode("ok?")))
    assert candidate.text == "yes"
    assert [piece.text async for piece in hybrid.stream(Request((65,)))] == ["y", "e", "s"]
    assert (await hybrid.score((65,), (66,))).token_ids == (66,)
    activations = await hybrid.inspect_all(TEXTS, Inspection())
    assert [tuple(one.logprob) for one in activations] == TEXTS
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
        HybridBackend(able, Scorer(why_no_activations="it shows no hidden states"))
    with pytest.raises(errors.ConfigurationError, match="ScriptedBackend cannot"):
        HybridBackend(ScriptedBackend([]), Scorer(), sequential=True)
    assert HybridBackend(able, Scorer(), sequential=True)


def sequential(log, *, delay: float = 0.0, fails: str = "") -> HybridBackend:
    return with_scorer(Scorer(log), delay=delay, fails=fails)


def with_scorer(scorer: Scorer, **arguments) -> HybridBackend:
    return HybridBackend(SleepingGenerator(scorer.log, **arguments), scorer, sequential=True)


def busy_scorer(log: list[str]) -> Scorer:
    scorer = Scorer(log)
    scorer.busy = True
    return scorer


def inspected(hybrid, texts=TEXTS):
    return hybrid.inspect_all(texts, Inspection())


async def noted(log: list[str], what: str) -> None:
    await eventually(lambda: what in log)


@pytest.mark.parametrize("texts", [TEXTS, [()]])
def test_the_generator_sleeps_while_the_scorer_works(texts):
    hybrid = sequential(log := [])
    if () in texts:
        with pytest.raises(errors.EmptyPromptError):
            hybrid.run(inspected(hybrid, texts))
    else:
        assert len(hybrid.run(inspected(hybrid, texts))) == 2
    assert hybrid.run(hybrid.generate(Request((65,))))
    assert log == [*SWITCHES, "generate", "generated"]


async def test_inspections_that_wait_at_the_same_time_share_one_sleep():
    hybrid = with_scorer(scorer := busy_scorer(log := []), delay=0.05)
    generation = asyncio.create_task(hybrid.generate(Request((65,))))
    await noted(log, "generate")
    texts = [[(number,)] for number in range(1, 6)]
    inspections = [asyncio.create_task(inspected(hybrid, one)) for one in texts]
    await eventually(lambda: log.count("score") == 5)
    scorer.busy = False
    found = await asyncio.gather(*inspections)
    assert [[tuple(one.logprob) for one in each] for each in found] == texts
    await generation
    assert await hybrid.generate(Request((65,)))
    switches = ["sleep", *["score"] * 5, "unload", "wake"]
    assert log == ["generate", "generated", *switches, "generate", "generated"]


async def test_inspections_that_come_while_the_generator_sleeps_join_those_that_waited():
    hybrid = with_scorer(scorer := busy_scorer(log := []))
    first = asyncio.create_task(inspected(hybrid))
    await noted(log, "score")
    generation = asyncio.create_task(hybrid.generate(Request((65,))))
    second = asyncio.create_task(inspected(hybrid))
    await eventually(lambda: log.count("score") == 2)
    scorer.busy = False
    await asyncio.gather(first, second, generation)
    assert log == ["sleep", "score", "score", "unload", "wake", "generate", "generated"]


async def test_who_is_late_to_compare_the_tokens_does_not_wait_for_an_inspection():
    class Late(HybridBackend):
        ways = 0

        async def _running_loop(self):
            self.ways += 1
            if self.ways == 2:  # the second caller's first
                await noted(log, "score")
            return await super()._running_loop()

    scorer = busy_scorer(log := [])
    hybrid = Late(SleepingGenerator(log), scorer, sequential=True)
    both = [asyncio.create_task(inspected(hybrid)) for _ in range(2)]
    await eventually(lambda: log.count("score") == 2)
    scorer.busy = False
    await asyncio.gather(*both)
    assert log[:3] == ["sleep", "score", "score"]


async def test_an_inspection_that_fails_or_is_cancelled_costs_the_others_nothing():
    hybrid = with_scorer(scorer := busy_scorer(log := []))
    failing, cancelled, whole = (
        asyncio.create_task(inspected(hybrid, texts)) for texts in ([()], TEXTS, TEXTS)
    )
    await eventually(lambda: log.count("score") == 3)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    scorer.busy = False
    with pytest.raises(errors.EmptyPromptError):
        await failing
    assert len(await whole) == 2
    await hybrid.generate(Request((65,)))
    assert log == ["sleep", *["score"] * 3, "unload", "wake", "generate", "generated"]


async def test_texts_are_read_and_written_while_the_generator_sleeps():
    hybrid = with_scorer(scorer := busy_scorer(log := []))
    inspection = asyncio.create_task(inspected(hybrid))
    await noted(log, "score")
    assert await hybrid.encode("A") == (65,)
    assert await hybrid.encode_continuation("A") == (65,)
    assert await hybrid.decode((65,)) == "A"
    assert await hybrid.token_texts((65,)) == ["A"]
    assert log == ["sleep", "score"]
    scorer.busy = False
    await inspection


async def test_a_generator_that_cannot_sleep_stays_awake_and_the_inspection_raises():
    hybrid = sequential(log := [], fails="sleep")
    with pytest.raises(errors.EngineError, match="cannot sleep"):
        await inspected(hybrid)
    await hybrid.generate(Request((65,)))
    assert log == ["unload", "wake", "generate", "generated"]


async def test_where_the_generator_does_not_wake_generation_raises_and_the_next_tries_again():
    generator = SleepingGenerator(log := [], fails="wake")
    hybrid = HybridBackend(generator, Scorer(log), sequential=True)
    assert len(await inspected(hybrid)) == 2
    with pytest.raises(errors.EngineError, match="cannot wake"):
        await hybrid.generate(Request((65,)))
    generator.fails = ""
    await hybrid.generate(Request((65,)))
    assert log == ["sleep", "score", *["unload"] * 3, "wake", "generate", "generated"]


async def test_a_generator_closed_while_it_sleeps_is_not_woken():
    hybrid = with_scorer(busy_scorer(log := []))
    inspection = asyncio.create_task(inspected(hybrid))
    await noted(log, "score")
    hybrid.close()
    with pytest.raises(errors.EngineClosedError):
        await inspection
    await asyncio.sleep(0.05)
    assert log == ["sleep", "score"]


async def test_generation_waits_for_the_scorer_and_the_scorer_for_generation():
    hybrid = sequential(log := [], delay=0.05)
    await hybrid.encode("warm")
    first = [asyncio.create_task(hybrid.generate(Request((65,)))) for _ in range(2)]
    await eventually(lambda: log == ["generate", "generate"])
    inspection = asyncio.create_task(inspected(hybrid))
    await noted(log, "score")
    await asyncio.gather(*first, inspection, hybrid.generate(Request((65,))))
    together = ["generate", "generate", "generated", "generated"]
    assert log == [*together, *SWITCHES, "generate", "generated"]


async def test_a_cancelled_scorer_leaves_the_generator_awake():
    hybrid = with_scorer(busy_scorer(log := []))
    task = asyncio.create_task(inspected(hybrid))
    await noted(log, "score")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pieces = [piece async for piece in hybrid.stream(Request((65,)))]
    assert pieces[-1].candidate.text == "yes"
    assert log[:4] == SWITCHES


@pytest.mark.engine
def test_vllms_tokens_are_inspected_by_the_hugging_face_model(backend, capital_ids):
    """The scorer's log-probabilities are those that vLLM generated with."""
    with HuggingFaceBackend("smollm2") as scorer:
        hybrid = HybridBackend(backend, scorer)
        request = Request(capital_ids, sampling={"temperature": 0, "max_tokens": 8})
        (candidate,) = hybrid.run(hybrid.generate(request))
        text = capital_ids + candidate.token_ids
        (activations,) = hybrid.run(hybrid.inspect_all([text], Inspection((-1,), "bands")))
    generated = activations.logprob[len(capital_ids) - 1 :]
    np.testing.assert_allclose(generated, candidate.trace.logprob, rtol=0, atol=2e-3)
    assert activations.hidden[-1].shape == (len(text), 576)
    assert activations.attention_last.shape == (30, 9, len(text))
