"""What a metered backend counts, and what it takes for no answer to the request."""

from dataclasses import replace
from random import Random

import pytest

from uq_llm_integrations import (
    EngineDeadError,
    EngineError,
    Inspection,
    InvalidRequestError,
    Request,
    ScriptedBackend,
    Usage,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.testing import ENGINE_FAULTS, EngineFault, FaultyBackend

PROMPT = (65, 66, 67)

other_prompt = ENGINE_FAULTS["an answer to another prompt"]


@pytest.fixture
def metered() -> MeteredBackend:
    return MeteredBackend(ScriptedBackend(["Paris", "Lyon"]))


async def test_generation_counts_its_prompt_once_and_as_many_passes_as_the_longest_sample(metered):
    await metered.generate(Request(PROMPT, n=2))
    assert metered.usage == Usage(prompt_tokens=3, generated_tokens=9, forward_passes=5)


async def test_a_sample_that_failed_counts_no_tokens():
    metered = MeteredBackend(ScriptedBackend([EngineError("out of luck"), "Lyon"]))
    await metered.generate(Request(PROMPT, n=2))
    assert metered.usage == Usage(prompt_tokens=3, generated_tokens=4, forward_passes=4)


async def test_scoring_counts_the_given_tokens_and_one_pass(metered):
    await metered.score_all(PROMPT, [(1, 2), (3,)])
    assert metered.usage == Usage(prompt_tokens=3, scored_tokens=3, forward_passes=1)


async def test_inspection_counts_all_tokens_as_scored(metered):
    await metered.inspect_all([(1, 2), (3,)], Inspection())
    assert metered.usage == Usage(scored_tokens=3, forward_passes=1)


async def test_costs_add_up_and_text_is_free(metered):
    await metered.generate(Request(PROMPT))
    await metered.score_all(PROMPT, [(1, 2)])
    assert await metered.encode("A") == await metered.encode_continuation("A") == (65,)
    assert await metered.decode((65,)) == "A"
    assert await metered.token_texts((65,)) == ["A"]
    assert metered.usage == Usage(6, 5, 2, forward_passes=6)
    assert metered.capabilities == metered.backend.capabilities


async def test_a_call_that_fails_counts_nothing(metered):
    with pytest.raises(InvalidRequestError):
        await metered.generate(Request(()))
    assert metered.usage == Usage()


async def test_what_another_backend_costs_is_counted_by_both(metered):
    other = metered.on(ScriptedBackend(["Rome"]))
    await metered.generate(Request(PROMPT))
    await other.generate(Request(PROMPT))
    await other.inspect_all([(1, 2)], Inspection())
    assert other.usage == Usage(3, 4, 2, forward_passes=5)
    assert metered.usage == Usage(6, 9, 2, forward_passes=10)


async def test_prompts_of_methods_have_text_of_a_chat_as_text():
    class Marking(ScriptedBackend):
        async def encode_data(self, text, *, continues=False):
            return (7,)

    for is_data, expected in ((True, (7,)), (False, (65,))):
        metered = MeteredBackend(Marking(["a"]), is_data=is_data).on(Marking(["b"]))
        assert await metered.encode("A") == expected
        assert await metered.encode("A", chat=True) == (65,)


def lying(kind: str) -> MeteredBackend:
    fault = ENGINE_FAULTS[kind](Random(0))
    return MeteredBackend(FaultyBackend(ScriptedBackend(["Paris"]), lambda request: fault))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("too few candidates", "0 candidates of the 1"),
        ("too many candidates", "2 candidates of the 1"),
        ("an answer to another prompt", "another prompt"),
    ],
)
async def test_what_is_no_answer_to_the_request_is_an_error(kind, why):
    with pytest.raises(EngineError, match=why):
        await lying(kind).generate(Request(PROMPT))
    with pytest.raises(EngineError, match=why):
        await lying(kind).score_all(PROMPT, [(1,)])


async def test_traces_of_other_tokens_than_the_given_ones_are_an_error():
    with pytest.raises(EngineError, match="other tokens than those to score"):
        await lying("wrong lengths").score_all(PROMPT, [(1, 2)])


@pytest.mark.parametrize(
    ("fault", "error", "why"),
    [
        (EngineFault("ends", "during", at=2, ends=True), EngineDeadError, "its last piece"),
        (EngineFault("loses", "during", at=2, loses=True), EngineError, "not those of its answer"),
        (other_prompt(Random(0)), EngineError, "another prompt"),
    ],
)
async def test_a_stream_that_is_not_whole_is_an_error(fault, error, why):
    lying = FaultyBackend(ScriptedBackend(["Paris"]), lambda request: fault)
    with pytest.raises(error, match=why):
        async for _ in MeteredBackend(lying).stream(Request(PROMPT)):
            pass


async def test_a_varentropy_that_no_distribution_has_is_damage():
    class Varied(ScriptedBackend):
        async def generate(self, request, monitor=None):
            (found,) = await super().generate(request, monitor)
            return [replace(found, trace=replace(found.trace, varentropy=found.trace.logprob + 99))]

    (found,) = await MeteredBackend(Varied(["Paris"])).generate(Request(PROMPT))
    assert found.text == "Paris" and "varentropy" in str(found.trace.damage)
