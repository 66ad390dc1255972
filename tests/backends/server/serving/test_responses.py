"""Statistics in the chunks of streams and in whole responses."""

import json

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram

from uq_llm_integrations.backends.server.serving.answer_fields import Answers
from uq_llm_integrations.backends.server.serving.metrics import Metrics
from uq_llm_integrations.backends.server.serving.observed import Observed
from uq_llm_integrations.backends.server.serving.request_fields import Wish
from uq_llm_integrations.backends.server.serving.responses import watched, with_statistics
from uq_llm_integrations.backends.token_statistics import COLUMNS


def metrics(registry: CollectorRegistry) -> Metrics:
    entropy = Histogram("entropy", "", ["model_name"], registry=registry)
    answers = Counter("answers", "", ["model_name", "exact"], registry=registry)
    return Metrics("m", (entropy, answers))


def answers(**options) -> Answers:
    return Answers(Wish(**options), metrics(CollectorRegistry()))


def observed(*entropies: float) -> Observed:
    rows = np.ones((len(entropies), len(COLUMNS)))
    rows[:, 0] = [-one for one in entropies]
    return Observed(rows)


def line(**choice) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'finish_reason': None, **choice}]})}\n\n"


async def streamed(given: Answers, *steps) -> list[dict]:
    """Run a stream in which each step of the engine gives entropies, and lines or none."""

    async def results():
        for step in steps:
            yield step

    async def lines():
        async for _, *found in watched(
            results(), lambda one: given.see(0, observed(*one[0]), None)
        ):
            for one in found:
                yield one
        yield "data: [DONE]\n\n"

    *chunks, done = [one async for one in with_statistics(lines(), given)]
    assert done == "data: [DONE]\n\n"
    return [json.loads(one.removeprefix("data: "))["choices"][0] for one in chunks]


async def test_what_is_held_back_comes_with_the_next_chunk():
    role = line(delta={"role": "assistant", "content": ""})
    chunks = await streamed(
        answers(),
        ([1.0], role, line(delta={"content": "a"})),
        ([2.0],),
        ([3.0], line(delta={"content": "bc"})),
        ([], line(delta={}, finish_reason="stop")),
    )
    assert "uncertainty" not in chunks[0]
    fields = [one["uncertainty"] for one in chunks[1:]]
    assert [one["first"] for one in fields] == [0, 1, 3]
    assert [one["entropy"] for one in fields] == [[1.0], [2.0, 3.0], []]
    assert ["scores" in one for one in fields] == [False, False, True]
    assert fields[-1]["scores"]["mean_entropy"] == 2.0


async def test_each_log_probability_has_its_tokens_entropy():
    content = [{"token": "a"}, {"token": "b"}]
    (chunk,) = await streamed(
        answers(), ([1.0, 2.0], line(logprobs={"content": content}, delta={}))
    )
    assert [one["entropy"] for one in chunk["logprobs"]["content"]] == [1.0, 2.0]
    (chunk,) = await streamed(answers(), ([1.0], line(text="x", logprobs={"tokens": ["p", "a"]})))
    assert chunk["logprobs"]["entropy"] == [None, 1.0]


async def test_text_is_left_as_it_is():
    (chunk,) = await streamed(answers(), ([1.0], line(text="naïve 東京 🙂 \u2028")))
    assert chunk["text"] == "naïve 東京 🙂 \u2028"


async def test_the_engines_outputs_are_closed_with_the_stream():
    closed = []

    async def outputs():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    stream = watched(outputs(), lambda _: None)
    assert await anext(stream) == 1
    await stream.aclose()
    assert closed == [True]


def test_answers_are_counted_by_what_is_known_of_them():
    registry = CollectorRegistry()
    given = Answers(Wish(), metrics(registry))
    given.see(0, observed(1.0, 3.0), None)
    given.see(1, None, None)
    for index in (0, 1):
        given.part(index, is_last=True)
    value = registry.get_sample_value
    assert value("entropy_sum", {"model_name": "m"}) == 2.0
    for exact in ("true", "false"):
        assert value("answers_total", {"model_name": "m", "exact": exact}) == 1.0


def test_an_answer_that_was_not_observed_says_so():
    given = answers()
    given.see(0, None, None)
    fields = given.part(0, is_last=True)
    assert fields["exact"] is False and "observed none" in fields["reason"]
    assert fields["scores"] == {"mean_entropy": None, "perplexity": None}
