"""What a metered backend counts."""

import pytest

from uq_llm_integrations import (
    EngineError,
    Inspection,
    InvalidRequestError,
    Request,
    ScriptedBackend,
    Usage,
)
from uq_llm_integrations.backends.metering import MeteredBackend

PROMPT = (65, 66, 67)


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
