"""Query engines that say how far their answers rest on the nodes that were retrieved."""

import json
from typing import Any

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import TextNode

from tests.grounding.reading import Reading, knowing
from uq_llm_integrations import (
    ConfigurationError,
    EngineDeadError,
    Grounding,
    HighUncertaintyError,
    InvalidRequestError,
    MethodUnavailableError,
)
from uq_llm_integrations.llama_index import (
    UncertaintyEvaluator,
    UncertaintyEventHandler,
    UncertaintyQueryEngine,
    VLLMUncertaintyLLM,
)

FACT, RAIN = "The capital is Oslo.", "It rains."
BOTH_WAYS = pytest.mark.parametrize("is_async", [False, True])


def reading(*script: str) -> VLLMUncertaintyLLM:
    return VLLMUncertaintyLLM(backend=Reading(knowing(FACT), script or ("Oslo.",)))


def inner(
    llm: Any = None, texts: tuple[str, ...] = (FACT, RAIN), mode: str = "compact", **more: Any
) -> RetrieverQueryEngine:
    nodes = [TextNode(text=text, id_=f"node {i}") for i, text in enumerate(texts)]
    synthesizer = get_response_synthesizer(
        llm=llm or reading(), response_mode=ResponseMode(mode), **more
    )
    return RetrieverQueryEngine(SummaryIndex(nodes).as_retriever(), synthesizer)


def engine(*texts: str, **options: Any) -> UncertaintyQueryEngine:
    return UncertaintyQueryEngine(inner(texts=texts or (FACT, RAIN)), **options)


def metadata_of(response: Any) -> dict[str, Any]:
    return response.metadata["uncertainty"]


async def query(scored: UncertaintyQueryEngine, is_async: bool) -> Any:
    return await scored.aquery("Capital?") if is_async else scored.query("Capital?")


@BOTH_WAYS
async def test_the_metadata_say_how_far_the_answer_rests_on_its_nodes(is_async):
    response = await query(engine(grounding=True), is_async)
    found = metadata_of(response)["grounding"]
    assert found["is_grounded"] is True
    assert found["support"] == pytest.approx(4.9 * len("Oslo."))
    assert [one["name"] for one in found["sources"]] == ["node 0", "node 1"]
    assert found["main"] == 0
    assert metadata_of(response)["uncertain"] is False
    json.dumps(metadata_of(response), allow_nan=False)


def test_unless_it_is_wanted_nothing_is_measured():
    assert "grounding" not in metadata_of(engine().query("?"))


@BOTH_WAYS
async def test_an_answer_that_is_not_grounded_gives_way_to_another_text(is_async):
    scored = engine(RAIN, grounding=True, on_high_uncertainty="abstain", abstention_text="No.")
    response = await query(scored, is_async)
    assert str(response) == "No."
    assert metadata_of(response)["original_text"] == "Oslo."
    assert metadata_of(response)["decision"] == "abstained"


@BOTH_WAYS
async def test_it_can_be_an_error_that_says_why(is_async):
    scored = engine(RAIN, grounding=True, on_high_uncertainty="raise")
    with pytest.raises(
        HighUncertaintyError, match="support < 3: no source adds more than 0 nats"
    ) as caught:
        await query(scored, is_async)
    assert caught.value.uncertainty["grounding"]["is_grounded"] is False


@BOTH_WAYS
async def test_an_answer_that_is_not_grounded_is_sampled_again(is_async):
    class Knowing(Reading):
        """Knows of one answer that sources say it, and of no other."""

        async def score_all(self, prompt_ids, continuations, top_logprobs=0):
            says = bytes(continuations[0]) == b"Oslo."
            self._logprob = knowing(FACT if says else "nothing")
            return await super().score_all(prompt_ids, continuations, top_logprobs)

    llm = VLLMUncertaintyLLM(backend=Knowing(knowing(FACT), ["Rome.", "Oslo."]))
    response = await query(UncertaintyQueryEngine(inner(llm), grounding=True, retries=1), is_async)
    assert str(response) == "Oslo."
    assert metadata_of(response)["decision"] == "retried"
    assert metadata_of(response)["grounding"]["answer"] == "Oslo."


def test_the_least_support_can_be_given():
    assert metadata_of(engine(least_support=24).query("?"))["uncertain"] is False
    assert metadata_of(engine(least_support=25).query("?"))["uncertain"] is True
    how = Grounding(least_support=25)
    assert metadata_of(engine(grounding=how).query("?"))["uncertain"] is True
    assert metadata_of(engine(grounding=how, least_support=1).query("?"))["uncertain"] is False


@BOTH_WAYS
@pytest.mark.parametrize(("least", "is_uncertain"), [(2, False), (25, True)])
async def test_a_condition_reads_the_support_in_the_place_of_the_least(
    least, is_uncertain, is_async
):
    response = await query(engine(uncertain_when=f"support < {least}"), is_async)
    assert metadata_of(response)["uncertain"] is is_uncertain
    verdict = UncertaintyEvaluator(f"support < {least}").evaluate_response(response=response)
    assert verdict.passing is not is_uncertain


def test_a_condition_reads_it_beside_scores():
    both = engine(uncertain_when="support < 2 or perplexity > 1.01")
    assert metadata_of(both.query("?"))["uncertain"] is True


def test_a_condition_on_the_support_of_what_has_no_sources_is_refused():
    with pytest.raises(ConfigurationError, match="there are none"):
        VLLMUncertaintyLLM(backend=Reading(knowing(FACT)), uncertain_when="support < 2")
    response = UncertaintyQueryEngine(inner()).query("?")
    with pytest.raises(InvalidRequestError, match="was not measured"):
        UncertaintyEvaluator("support < 2").evaluate_response(response=response)


@BOTH_WAYS
async def test_a_stream_has_it_when_it_has_been_read(is_async):
    scored = UncertaintyQueryEngine(inner(streaming=True), grounding=True)
    response = await query(scored, is_async)
    if is_async:
        text = "".join([token async for token in response.response_gen])
    else:
        text = "".join(response.response_gen)
    assert metadata_of(response)["grounding"]["answer"] == text == "Oslo."
    assert metadata_of(response)["uncertain"] is False


@BOTH_WAYS
async def test_event_handlers_get_it(is_async):
    handler, handlers = UncertaintyEventHandler(), get_dispatcher().event_handlers
    get_dispatcher().add_event_handler(handler)
    try:
        response = await query(engine(grounding=True), is_async)
    finally:
        handlers.remove(handler)
    assert handler.groundings == [metadata_of(response)["grounding"]]


class Failing(Reading):
    """Answers, and fails to score."""

    error: Exception

    async def score_all(self, *arguments):
        raise self.error


@BOTH_WAYS
async def test_an_answer_is_not_lost_where_its_grounding_fails(is_async):
    backend = Failing(knowing(FACT), ["Oslo."])
    backend.error = EngineDeadError("the engine has died")
    llm = VLLMUncertaintyLLM(backend=backend)
    response = await query(UncertaintyQueryEngine(inner(llm), grounding=True), is_async)
    assert str(response) == "Oslo."
    found = metadata_of(response)["grounding"]
    assert (found["support"], found["reason"]) == (None, "the engine has died")
    assert found["cost"] is None
    assert metadata_of(response)["uncertain"] is True


def test_nodes_that_do_not_fit_are_a_reason_that_says_their_sizes():
    long, other = "a" * 3000, "b" * 3000
    scored = UncertaintyQueryEngine(inner(reading(), (long, other), "refine"), grounding=True)
    found = metadata_of(scored.query("?"))["grounding"]
    assert found["support"] is None
    assert "the sources have 3002, 3002 tokens" in found["reason"]


def test_a_model_that_can_never_score_is_an_error():
    backend = Failing(knowing(FACT), ["Oslo."])
    backend.error = MethodUnavailableError("it scores no given text")
    llm = VLLMUncertaintyLLM(backend=backend)
    with pytest.raises(MethodUnavailableError):
        UncertaintyQueryEngine(inner(llm), grounding=True).query("?")


@BOTH_WAYS
async def test_an_answer_of_no_model_of_this_package_is_not_known_to_be_grounded(is_async):
    scored = UncertaintyQueryEngine(inner(MockLLM()), grounding=True, allow_unscored=True)
    found = metadata_of(await query(scored, is_async))
    assert found["grounding"]["reason"] == "no model of this package gave the answer"
    assert found["uncertain"] is True


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"grounding": 3}, "it must be a Grounding"),
        ({"grounding": Grounding(on_not_grounded="abstain")}, "on_high_uncertainty says"),
        ({"least_support": "1"}, "least_support is '1'"),
    ],
)
def test_what_can_never_work_is_refused_at_construction(arguments, error):
    with pytest.raises(ConfigurationError, match=error):
        engine(**arguments)
