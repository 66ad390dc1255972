"""One tree of errors, all of them public, picklable and clear about what to do."""

import pickle

import pytest

import uq_llm_integrations as uq
from uq_llm_integrations import errors

RESULT = uq.UncertaintyModel(uq.ScriptedBackend(["Paris"])).generate("?")

EXAMPLES = [
    uq.ConfigurationError("wrong"),
    uq.CalibrationMismatchError("the model is another"),
    uq.UnknownMethodError("entrpy", ["entropy", "maxprob"]),
    uq.MethodUnavailableError("no attention"),
    uq.NotShareableError("no layer"),
    uq.ModelNotFoundError("no model"),
    uq.MissingDependencyError("vllm", "vllm"),
    uq.InvalidRequestError("n is 0"),
    uq.InvalidOptionError("n is 0"),
    uq.EmptyPromptError(),
    uq.PromptTooLongError(9, 4),
    uq.SourcesTooLongError(9, 2, 4, (3, 5)),
    uq.EvidenceError("nothing"),
    uq.HighUncertaintyError("entropy > 1", result=RESULT, text="x", uncertainty={"a": 1.0}),
    uq.InvalidAnswerError("no object", text="[1]", finish_reason="stop", uncertainty={"a": 1.0}),
    uq.IncompleteAnswerError("cut", text="{", finish_reason="length", uncertainty={"a": 1.0}),
    uq.EngineError("failed"),
    uq.EngineStartError("no start"),
    uq.EngineDeadError("dead"),
    uq.EngineLostError("dead for good"),
    uq.EngineClosedError("closed"),
    uq.EngineBusyError("full"),
    uq.EngineTimeoutError("late"),
    uq.UncertaintyError("root"),
]

ALL = {
    one
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, uq.UncertaintyError)
}


def test_every_error_has_an_example_here_and_is_public():
    assert {type(one) for one in EXAMPLES} == ALL
    assert {one.__name__ for one in ALL} <= set(uq.__all__)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda one: type(one).__name__)
def test_an_error_survives_pickling(error):
    error.completed = {1: "done"}
    error.add_note("noted")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.is_retryable) == (str(error), error.is_retryable)
    assert copy.__dict__.keys() == error.__dict__.keys()
    assert copy.completed == {1: "done"} and copy.__notes__ == ["noted"]


def test_the_result_of_an_uncertain_answer_is_pickled_with_it():
    error = uq.HighUncertaintyError("entropy > 1", result=RESULT)
    copy = pickle.loads(pickle.dumps(error))
    assert copy.result.text == "Paris"
    assert copy.result.score("perplexity") == RESULT.score("perplexity")


def test_a_timeout_is_no_death_of_the_engine_and_both_can_be_tried_again():
    assert not issubclass(uq.EngineTimeoutError, uq.EngineDeadError)
    assert uq.EngineTimeoutError("x").is_retryable and uq.EngineDeadError("x").is_retryable
    assert not uq.EngineStartError("x").is_retryable


@pytest.mark.parametrize("name", ["temprature", "max_token", "uncertain_wen", "top_logprob"])
def test_a_typo_names_the_nearest_parameter(name):
    from uq_llm_integrations.langchain import ChatVLLMUncertainty

    nearest = {"temprature": "temperature", "max_token": "max_tokens"}
    nearest |= {"uncertain_wen": "uncertain_when", "top_logprob": "top_logprobs"}
    for make in (uq.Settings, lambda **given: ChatVLLMUncertainty(model="org/name", **given)):
        with pytest.raises(uq.ConfigurationError, match=f"did you mean .*'{nearest[name]}'"):
            make(**{name: 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["entrpy"]}, "unknown uncertainty method 'entrpy'"),
        ({"strategy": "best_of"}, "best_of_n"),
        ({"strategy": {"type": "best_of_n", "by": "entrpy"}}, "entrpy"),
        ({"uncertain_when": "entrpy > 1"}, "did you mean 'entropy'"),
        ({"top_p": 3}, "top_p is 3"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"stop": [""]}, "a stop string is empty"),
        ({"on_high_uncertainty": "abstain"}, "needs `uncertain_when`"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_what_can_never_work_is_refused_at_construction(options, message):
    with pytest.raises((uq.ConfigurationError, uq.InvalidRequestError), match=message):
        uq.UncertaintyModel(uq.ScriptedBackend(["x"]), **options)
