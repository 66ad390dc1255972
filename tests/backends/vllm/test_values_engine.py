"""Wrong values on the real engine: their caller gets an error, and everyone else an answer."""

import asyncio

import pytest

from tests.conftest import eventually
from uq_llm_integrations import EarlyStop, InvalidRequestError, Request, UncertaintyModel

pytestmark = pytest.mark.engine

GREEDY = {"temperature": 0, "max_tokens": 12}

WRONG = [
    ((1, 2), {"max_tokens": 2.5}),
    ((1, 2), {"seed": 2**64}),
    ((1, 2), {"logit_bias": {"2": float("nan")}}),
    ((1, 2), {"logit_bias": {10**6: 1.0}}),
    ((1, 2), {"allowed_token_ids": [-1]}),
    ((1, 2), {"extra_args": {"a": {1, 2}}}),
    ((1, 2), {"extra_args": {"uq_stop": "x"}}),
    ((1, 2), {"structured_outputs": {"json": 5}}),
    ((1, 2), {"structured_outputs": {}}),
    ((1, 2), {"repetition_detection": {"max_pattern_size": 4}}),
    ((1, -2), {}),
    ((1, "a"), {}),
    ((1, 2), {"stop": ["\ud800"]}),
]


@pytest.mark.parametrize(("prompt_ids", "sampling"), WRONG)
async def test_a_wrong_value_hurts_no_other_caller(backend, capital_ids, prompt_ids, sampling):
    other = asyncio.create_task(backend.generate(Request(capital_ids, sampling=GREEDY)))
    with pytest.raises(InvalidRequestError) as caught:
        async with asyncio.timeout(30):
            await backend.generate(Request(prompt_ids, sampling=sampling))
    assert str(caught.value)
    (answer,) = await other
    assert "Paris" in answer.text
    assert not backend.start().is_dead


def test_a_rule_that_cannot_be_sent_hurts_no_other_caller(backend, capital_ids):
    rule = EarlyStop(1.0, window=10**30)
    with pytest.raises(InvalidRequestError, match="extra_args"):
        backend.run(backend.generate(Request(capital_ids, sampling=GREEDY, early_stop=rule)))
    assert backend.run(backend.generate(Request(capital_ids, sampling=GREEDY)))


def test_values_that_are_exactly_right_are_sent(backend, capital_ids):
    sampling = {
        "max_tokens": 12.0,
        "temperature": 0,
        "min_tokens": 1.0,
        "ignore_eos": 0,
        "stream_interval": 2.0,
        "logit_bias": {"2": -100},
        "stop": "Paris",
        "repetition_detection": {"max_pattern_size": 4, "min_count": 3},
    }
    (candidate,) = backend.run(backend.generate(Request(capital_ids, sampling=sampling)))
    assert (candidate.text, candidate.stop_reason) == ("The capital of France is ", "Paris")


@pytest.mark.parametrize("sampling", [{}, {"max_tokens": None}, {"max_tokens": 10**12}])
def test_an_answer_may_take_what_the_prompt_leaves_of_the_context(backend, sampling):
    room = 24
    ids = (504, *[3575] * (backend.capabilities.context_length - room - 1))
    request = Request(ids, sampling={**sampling, "ignore_eos": True, "temperature": 0})
    (candidate,) = backend.run(backend.generate(request))
    assert (len(candidate.token_ids), candidate.finish_reason) == (room, "length")


async def test_nothing_is_left_of_refused_requests(backend):
    model = UncertaintyModel(backend, temperature=0, max_tokens=4)
    with pytest.raises(InvalidRequestError, match="lone surrogate") as caught:
        await model.agenerate_all(["The capital of France is", "\ud800", "One, two,"])
    assert list(caught.value.completed) == [0, 2]
    process = backend.start()

    async def nothing_is_left() -> bool:
        recorded = await process.loop.arun(process.recorded())
        return recorded == [] and not process.llm.output_processor.has_unfinished_requests()

    await eventually(nothing_is_left)
