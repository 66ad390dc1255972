"""Query engines that return how sure the model was, on a backend that answers from a script."""

import asyncio
import json
from typing import Any

import pytest
from llama_index.core import Settings, SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import Document, TextNode
from llama_index.core.tools import QueryEngineTool
from llama_index.retrievers.bm25 import BM25Retriever
from pydantic import BaseModel

from tests.llama_index.scripted import PERPLEXITY, in_order, scripted
from uq_llm_integrations import ScriptedLine, agreement, errors, score, token_max
from uq_llm_integrations.llama_index import (
    UncertaintyEvaluator,
    UncertaintyQueryEngine,
    VLLMUncertaintyLLM,
)

UNCERTAIN = score("perplexity") > 1.65
DOUBTFUL = ScriptedLine("Rome?", 0.3)


def engine(
    llm: VLLMUncertaintyLLM, texts=("Paris is a capital.",), mode="compact", **arguments: Any
) -> RetrieverQueryEngine:
    index = SummaryIndex.from_documents([Document(text=text) for text in texts])
    mode = ResponseMode(mode)
    synthesizer = get_response_synthesizer(llm=llm, response_mode=mode, **arguments)
    return RetrieverQueryEngine(index.as_retriever(), synthesizer)


def metadata_of(response: Any) -> dict[str, Any]:
    return response.metadata["uncertainty"]


async def query(scored: UncertaintyQueryEngine, is_async: bool) -> Any:
    return await scored.aquery("?") if is_async else scored.query("?")


async def read(response: Any, is_async: bool) -> str:
    if is_async:
        return "".join([token async for token in response.response_gen])
    return "".join(response.response_gen)


BOTH_WAYS = pytest.mark.parametrize("is_async", [False, True])


@BOTH_WAYS
async def test_the_metadata_have_the_scores_of_the_answer(is_async):
    response = await query(UncertaintyQueryEngine(engine(scripted())), is_async)
    assert str(response) == "Paris."
    assert metadata_of(response)["final"]["scores"]["perplexity"] == pytest.approx(PERPLEXITY)
    assert metadata_of(response)["decision"] == "accepted"
    assert metadata_of(response)["uncertain"] is False
    assert len(response.source_nodes) == 1
    json.dumps(metadata_of(response), allow_nan=False)


def test_what_is_retrieved_is_what_the_inner_engine_retrieves():
    nodes = [TextNode(text="Paris is in France."), TextNode(text="Oslo is in Norway.")]
    retriever = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=1)
    inner = RetrieverQueryEngine.from_args(retriever, llm=scripted())
    response = UncertaintyQueryEngine(inner).query("Where is Oslo?")
    assert [node.text for node in response.source_nodes] == ["Oslo is in Norway."]
    assert metadata_of(response)["calls"][0]["text"] == "Paris."


def test_every_call_is_returned_with_the_highest_scores_of_all():
    llm = in_order(ScriptedLine("unsure", 0.2), ScriptedLine("sure", 0.9))
    response = UncertaintyQueryEngine(engine(llm, ("a", "b"), "refine")).query("?")
    first, last = metadata_of(response)["calls"]
    assert (first["text"], last["text"]) == ("unsure", "sure")
    assert metadata_of(response)["final"] == last["uncertainty"]
    assert metadata_of(response)["aggregate"]["perplexity"] == pytest.approx(5.0)


def test_the_final_scores_are_those_of_the_call_that_said_the_answer():
    """Not those of a call that was made after it, such as one that looks for sources."""

    class Checked(RetrieverQueryEngine):
        def _query(self, query_bundle):
            response = super()._query(query_bundle)
            llm.complete("Is that right?")
            return response

    llm = in_order(ScriptedLine("Paris.", 0.9), ScriptedLine("yes", 0.2))
    checked = Checked.from_args(engine(llm).retriever, llm)
    response = UncertaintyQueryEngine(checked).query("?")
    assert len(metadata_of(response)["calls"]) == 2
    assert metadata_of(response)["final"]["scores"]["perplexity"] == pytest.approx(PERPLEXITY)


@BOTH_WAYS
@pytest.mark.parametrize("doubtful", [0, 1, 2])
async def test_an_answer_in_parts_is_as_uncertain_as_its_most_uncertain_part(doubtful, is_async):
    lines = [ScriptedLine(text, 0.9) for text in ("Oslo.", "Bergen.", "Paris.")]
    lines[doubtful] = ScriptedLine("Rome?", 0.3)
    llm = in_order(*lines)
    parts = engine(llm, ("a", "b", "c"), "accumulate")
    response = await query(UncertaintyQueryEngine(parts, UNCERTAIN), is_async)
    assert metadata_of(response)["uncertain"] is True
    assert len(metadata_of(response)["parts"]) == 3
    assert metadata_of(response)["final"]["scores"]["perplexity"] == pytest.approx(1 / 0.3)
    assert not UncertaintyEvaluator(UNCERTAIN).evaluate_response(response=response).passing


def test_an_empty_part_is_uncertain():
    llm = in_order("Oslo.", "", "Paris.")
    parts = engine(llm, ("a", "b", "c"), "accumulate")
    response = UncertaintyQueryEngine(parts, UNCERTAIN).query("?")
    assert "Empty Response" in str(response)
    assert metadata_of(response)["uncertain"] is True
    assert len(metadata_of(response)["parts"]) == 3


def test_that_nothing_was_found_is_not_judged_by_a_call_that_did_not_say_so():
    class Rewriting(RetrieverQueryEngine):
        def _query(self, query_bundle):
            llm.complete("What would the answer look like?")
            return super()._query(query_bundle)

    llm = in_order("Paris.")
    empty = SummaryIndex(nodes=[]).as_retriever()
    response = UncertaintyQueryEngine(Rewriting.from_args(empty, llm), UNCERTAIN).query("?")
    assert str(response) == "Empty Response"
    assert metadata_of(response)["final"] is None
    assert metadata_of(response)["uncertain"] is True


def test_an_answer_in_sure_parts_is_sure():
    llm = in_order("Oslo.", "Paris.")
    response = UncertaintyQueryEngine(engine(llm, ("a", "b"), "accumulate"), UNCERTAIN).query("?")
    assert metadata_of(response)["uncertain"] is False
    assert UncertaintyEvaluator(UNCERTAIN).evaluate_response(response=response).passing


async def test_queries_at_once_do_not_mix():
    sure, unsure = (
        UncertaintyQueryEngine(engine(scripted([ScriptedLine("x", probability)])))
        for probability in (0.9, 0.2)
    )
    answers = await asyncio.gather(
        *(one.aquery("?") for one in [sure, unsure] * 5),
        *(asyncio.to_thread(one.query, "?") for one in [sure, unsure] * 5),
    )
    finals = [metadata_of(answer)["final"]["scores"]["perplexity"] for answer in answers]
    assert [len(metadata_of(answer)["calls"]) for answer in answers] == [1] * 20
    assert finals == [pytest.approx(1 / 0.9), pytest.approx(5.0)] * 10


@BOTH_WAYS
async def test_an_uncertain_answer_gives_way_to_another_text(is_async):
    scored = UncertaintyQueryEngine(
        engine(scripted([DOUBTFUL])),
        UNCERTAIN,
        on_high_uncertainty="abstain",
        abstention_text="No idea.",
    )
    response = await query(scored, is_async)
    assert str(response) == "No idea."
    assert metadata_of(response)["uncertain"] is True
    assert metadata_of(response)["decision"] == "abstained"
    assert metadata_of(response)["original_text"] == "Rome?"


@BOTH_WAYS
async def test_it_is_sampled_again_with_another_seed(is_async):
    llm = scripted([DOUBTFUL, "Paris."])
    scored = UncertaintyQueryEngine(engine(llm), UNCERTAIN, retries=2, temperature=0.4)
    response = await query(scored, is_async)
    assert str(response) == "Paris."
    assert metadata_of(response)["decision"] == "retried"
    assert metadata_of(response)["uncertain"] is False
    assert [attempt["text"] for attempt in metadata_of(response)["attempts"]] == ["Rome?"]
    first, second = (request.sampling for request in llm.backend.requests)
    assert "seed" not in first
    assert (second["seed"], second["temperature"]) == (1, 0.4)


def test_what_stays_uncertain_after_all_retries_is_acted_on():
    llm = scripted([DOUBTFUL])
    response = UncertaintyQueryEngine(engine(llm), UNCERTAIN, "abstain", retries=2).query("?")
    assert metadata_of(response)["decision"] == "abstained"
    assert len(metadata_of(response)["attempts"]) == 2
    seeds = [request.sampling.get("seed") for request in llm.backend.requests]
    assert seeds == [None, 1, 2]


def test_one_engine_within_another_is_sampled_again_with_the_outer_ones_seed():
    llm = scripted([DOUBTFUL, "Paris."])
    inner = UncertaintyQueryEngine(engine(llm))
    response = UncertaintyQueryEngine(inner, UNCERTAIN, retries=1).query("?")
    assert str(response) == "Paris."
    assert llm.backend.requests[1].sampling["seed"] == 1


@BOTH_WAYS
async def test_it_can_be_an_error(is_async):
    scored = UncertaintyQueryEngine(
        engine(scripted([DOUBTFUL])), UNCERTAIN, on_high_uncertainty="raise"
    )
    with pytest.raises(errors.HighUncertaintyError, match=r"perplexity > 1\.65") as caught:
        await query(scored, is_async)
    assert caught.value.text == "Rome?"
    assert caught.value.uncertainty["final"]["scores"]["perplexity"] > 0.5


def test_without_a_condition_the_models_own_decision_counts():
    llm = scripted([DOUBTFUL], uncertain_when=UNCERTAIN)
    assert metadata_of(UncertaintyQueryEngine(engine(llm)).query("?"))["uncertain"] is True
    abstaining = UncertaintyQueryEngine(engine(llm), None, "abstain", "No idea.")
    assert str(abstaining.query("?")) == "No idea."


@BOTH_WAYS
async def test_a_stream_has_its_scores_when_it_has_been_read(is_async):
    llm = scripted([DOUBTFUL])
    scored = UncertaintyQueryEngine(engine(llm, streaming=True), UNCERTAIN)
    response = await query(scored, is_async)
    assert "uncertainty" not in response.metadata
    assert await read(response, is_async) == "Rome?"
    assert metadata_of(response)["final"]["scores"]["entropy"] > 0
    assert (metadata_of(response)["uncertain"], len(metadata_of(response)["calls"])) == (True, 1)


async def test_streams_at_once_do_not_mix():
    engines = [
        UncertaintyQueryEngine(
            engine(scripted([ScriptedLine("x" * 20, probability)]), streaming=True)
        )
        for probability in (0.9, 0.2)
    ]
    responses = [await one.aquery("?") for one in engines]
    await asyncio.gather(*(read(response, True) for response in responses))
    finals = [metadata_of(response)["final"]["scores"]["perplexity"] for response in responses]
    assert finals == [pytest.approx(1 / 0.9), pytest.approx(5.0)]


@BOTH_WAYS
async def test_a_stream_is_read_before_it_is_acted_on(is_async):
    inner = engine(scripted([DOUBTFUL]), streaming=True)
    scored = UncertaintyQueryEngine(inner, UNCERTAIN, "abstain", "No idea.")
    assert str(await query(scored, is_async)) == "No idea."


class City(BaseModel):
    """A city."""

    name: str


def test_an_object_has_scores_and_no_place_for_an_abstention():
    """The objects of LlamaIndex's synthesizers, by `output_cls`."""
    inner = engine(scripted([ScriptedLine('{"name": "Rome"}', 0.3)]), output_cls=City)
    response = UncertaintyQueryEngine(inner).query("?")
    assert response.response == City(name="Rome")
    assert "name" in metadata_of(response)["final"]["fields"]
    with pytest.raises(errors.HighUncertaintyError):
        UncertaintyQueryEngine(inner, UNCERTAIN, "abstain").query("?")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"uncertain_when": agreement() < 0.5}, "compares samples"),
        ({"on_high_uncertainty": "shrug"}, "allowed are annotate, abstain, raise"),
        ({"retries": -1}, "retries is -1"),
        ({"retries": "2"}, "retries is '2'"),
    ],
)
def test_what_can_never_work_is_refused_at_construction(arguments, error):
    with pytest.raises(errors.ConfigurationError, match=error):
        UncertaintyQueryEngine(engine(scripted()), **arguments)


def test_windows_over_tokens_are_known_with_their_scores_only():
    when = token_max("entropy") > 99
    known = UncertaintyQueryEngine(engine(scripted(token_scores=True)), when)
    assert metadata_of(known.query("?"))["uncertain"] is False
    with pytest.raises(errors.InvalidRequestError, match="token_scores=True"):
        UncertaintyQueryEngine(engine(scripted()), when).query("?")


def test_a_score_that_the_model_does_not_compute_is_an_error_that_names_it():
    scored = UncertaintyQueryEngine(engine(scripted()), "mean_nll > 1")
    with pytest.raises(errors.InvalidRequestError, match=r"methods=\['mean_nll'\]"):
        scored.query("?")


@BOTH_WAYS
async def test_another_providers_model_is_refused_unless_that_is_wanted(is_async):
    inner = RetrieverQueryEngine.from_args(engine(scripted()).retriever, MockLLM())
    with pytest.raises(errors.InvalidRequestError, match="has no scores"):
        await query(UncertaintyQueryEngine(inner, UNCERTAIN), is_async)
    response = await query(UncertaintyQueryEngine(inner, UNCERTAIN, allow_unscored=True), is_async)
    assert (metadata_of(response)["final"], metadata_of(response)["uncertain"]) == (None, False)


def test_an_answer_that_no_model_gave_counts_as_uncertain():
    """There are no documents, so that none is called."""
    scored = UncertaintyQueryEngine(engine(scripted(), texts=()), UNCERTAIN, "abstain", "No idea.")
    assert str(scored.query("?")) == "No idea."


@BOTH_WAYS
@pytest.mark.parametrize("use_async", [False, True])
async def test_sub_questions_return_the_scores_of_all_their_calls(use_async, is_async):
    """Also where LlamaIndex answers them in tasks of their own."""
    Settings.llm = llm = scripted()
    questions = [{"sub_question": f"{i}?", "tool_name": "cities"} for i in range(2)]
    asking = scripted([json.dumps({"items": questions})])
    tool = QueryEngineTool.from_defaults(engine(llm), name="cities", description="Knows cities.")
    sub_questions = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=[tool],
        question_gen=LLMQuestionGenerator.from_defaults(llm=asking),
        response_synthesizer=get_response_synthesizer(llm=llm),
        use_async=use_async,
        verbose=False,
    )
    scored = UncertaintyQueryEngine(sub_questions)
    response = await (scored.aquery("?") if is_async else asyncio.to_thread(scored.query, "?"))
    assert str(response) == "Paris."
    calls = metadata_of(response)["calls"]
    assert len(calls) == 4  # the questions, two answers, and the last answer


def test_the_prompts_are_those_of_the_inner_engine():
    assert "inner:response_synthesizer:text_qa_template" in (
        UncertaintyQueryEngine(engine(scripted())).get_prompts()
    )
