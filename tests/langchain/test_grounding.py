"""A step of a chain that says how far its answer rests on the documents."""

import json

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from tests.grounding.reading import Reading, knowing
from uq_llm_integrations import (
    ChatVLLMUncertainty,
    ConfigurationError,
    Grounding,
    HighUncertaintyError,
    InvalidRequestError,
    Source,
    UncertaintyModel,
)
from uq_llm_integrations.langchain import GroundingRunnable, UncertaintyCallbackHandler
from uq_llm_integrations.langchain.callbacks import LangSmithFeedbackHandler

FACT = "The capital is Oslo."
GIVEN = {"question": "Capital?", "answer": "Oslo", "documents": ["It rains.", FACT]}
BOTH_WAYS = pytest.mark.parametrize("is_async", [False, True])


def grounding(*arguments, **options) -> GroundingRunnable:
    return GroundingRunnable(UncertaintyModel(Reading(knowing(FACT))), *arguments, **options)


async def ground(step, given, is_async, **config):
    return await step.ainvoke(given, config) if is_async else step.invoke(given, config)


@BOTH_WAYS
async def test_the_input_gets_what_is_known_of_its_answer(is_async):
    output = await ground(grounding(), GIVEN, is_async)
    assert output.items() >= GIVEN.items()
    assert output["grounding"]["is_grounded"] is True
    assert (output["grounding"]["main"], output["grounding"]["support"]) == (1, pytest.approx(19.6))
    json.dumps(output, allow_nan=False)


@BOTH_WAYS
async def test_an_answer_that_is_not_grounded_gives_way_to_another_text(is_async):
    step = grounding(on_not_grounded="abstain", abstention_text="No idea.")
    output = await ground(step, {**GIVEN, "documents": ["It rains."]}, is_async)
    assert output["answer"] == "No idea."
    assert output["grounding"]["answer"] == "Oslo"
    assert output["grounding"]["decision"]["action"] == "abstained"


@BOTH_WAYS
async def test_it_can_be_an_error_to_fall_back_from(is_async):
    refused = (HighUncertaintyError,)
    step = grounding(on_not_grounded="raise", least_support=25)
    with pytest.raises(HighUncertaintyError, match="support < 25"):
        await ground(step, GIVEN, is_async)
    other = RunnableLambda(lambda given: "the bigger one knows")
    chain = step.with_fallbacks([other], exceptions_to_handle=refused)
    assert await ground(chain, GIVEN, is_async) == "the bigger one knows"


@BOTH_WAYS
async def test_handlers_of_the_run_get_it_once(is_async):
    handler = UncertaintyCallbackHandler()
    chain = RunnableLambda(lambda given: given) | grounding() | RunnableLambda(lambda given: given)
    output = await ground(chain, GIVEN, is_async, callbacks=[handler])
    assert handler.groundings == [output["grounding"]]


def test_langsmith_gets_the_support_as_feedback():
    class Client:
        def create_feedback(self, run_id, key, score):
            sent.append((key, score))

    sent = []
    grounding().invoke(GIVEN, {"callbacks": [LangSmithFeedbackHandler(Client())]})
    grounding().invoke({**GIVEN, "answer": ""}, {"callbacks": [LangSmithFeedbackHandler(Client())]})
    assert sent == [("uq_support", pytest.approx(19.6))]


def test_the_names_of_langchains_own_chains_are_known():
    given = {
        "input": "Capital?",
        "answer": AIMessage("Oslo"),
        "context": [
            Document(FACT, metadata={"source": "atlas.pdf"}),
            Document("It rains.", id="7"),
            Source("It snows.", "own"),
        ],
    }
    output = grounding().invoke(given)
    names = [one["name"] for one in output["grounding"]["sources"]]
    assert names == ["atlas.pdf", "7", "own"]
    assert output["answer"] == AIMessage("Oslo")


def test_an_abstention_in_a_messages_place_is_a_message():
    step = grounding(Grounding(least_support=25), on_not_grounded="abstain", abstention_text="No.")
    message = AIMessage("Oslo", id="1")
    assert step.invoke({**GIVEN, "answer": message})["answer"] == AIMessage("No.", id="1")


def test_a_chat_class_grounds_with_its_own_model():
    chat = ChatVLLMUncertainty(backend=Reading(knowing(FACT)))
    assert GroundingRunnable(chat).invoke(GIVEN)["grounding"]["is_grounded"] is True


def test_several_inputs_are_a_batch():
    inputs = [GIVEN, {**GIVEN, "documents": []}]
    found = [one["grounding"]["is_grounded"] for one in grounding().batch(inputs)]
    assert found == [True, False]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("Oslo", "must be a mapping"),
        ({"answer": "Oslo", "documents": []}, "no question or input"),
        ({"question": "?", "documents": []}, "no answer"),
        ({"question": "?", "answer": "Oslo"}, "no sources or documents or context"),
        ({**GIVEN, "documents": FACT}, "give a list of documents"),
        ({**GIVEN, "documents": [3]}, "a source is"),
        ({**GIVEN, "answer": 3}, "answer"),
    ],
)
def test_an_input_without_one_of_the_three_is_refused(given, match):
    with pytest.raises(InvalidRequestError, match=match):
        grounding().invoke(given)


@pytest.mark.parametrize("arguments", [{"model": "smollm2"}, {"grounding": 3}])
def test_what_can_never_work_is_refused_at_construction(arguments):
    with pytest.raises(ConfigurationError):
        GroundingRunnable(**{"model": UncertaintyModel(Reading(knowing(FACT))), **arguments})
