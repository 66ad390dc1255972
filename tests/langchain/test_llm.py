"""LangChain's completion class, on a backend that answers from a script."""

import asyncio
import json
import math

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumps
from langchain_core.prompts import PromptTemplate

from uq_llm_integrations import ScriptedBackend, VLLMUncertaintyLLM, errors
from uq_llm_integrations.langchain import UncertaintyCallbackHandler

PERPLEXITY = 1 / 0.9  # of the scripted probability
LOGPROB = math.log(0.9)


def scripted(script=("Paris.",), **arguments) -> VLLMUncertaintyLLM:
    return VLLMUncertaintyLLM(backend=ScriptedBackend(script), **arguments)


def test_invoke_returns_the_text():
    assert scripted().invoke("?") == "Paris."


def test_the_scores_are_in_generation_info_as_plain_numbers():
    result = scripted(token_scores=True, methods=["perplexity", "TokenEntropy"]).generate(["?"])
    info = result.generations[0][0].generation_info
    uncertainty = info["uncertainty"]
    assert info["finish_reason"] == "stop"
    assert uncertainty["scores"] == {"perplexity": pytest.approx(PERPLEXITY)}
    assert uncertainty["exact"] is True
    assert len(uncertainty["token_scores"]["TokenEntropy"]) == 6
    assert "".join(uncertainty["by_token"]["token"]) == "Paris."
    assert len(uncertainty["by_token"]["entropy"]) == 6
    json.dumps(info, allow_nan=False)
    assert "not_implemented" not in dumps(result.generations[0][0])


def test_only_the_summary_is_returned_by_default():
    info = scripted().generate(["?"]).generations[0][0].generation_info
    assert "by_token" not in info["uncertainty"]


def test_several_answers_are_kept_and_the_prompt_counts_once():
    result = scripted(["one", "three"], n=2).generate(["?", "??"])
    assert [[g.text for g in answers] for answers in result.generations] == [["one", "three"]] * 2
    assert result.llm_output["token_usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 16,
        "total_tokens": 19,
        "completion_tokens_details": {"chosen_tokens": 6},
    }


def test_text_and_scores_come_from_one_call():
    llm = scripted()
    text, uncertainty = llm.invoke_with_scores("?")
    other = asyncio.run(llm.ainvoke_with_scores("?"))
    assert text == other.text == "Paris."
    assert uncertainty["scores"] == other.uncertainty["scores"]
    assert len(llm.backend.requests) == 2


async def test_all_async_twins():
    llm = scripted()
    assert await llm.ainvoke("?") == "Paris."
    assert await llm.abatch(["?", "??"]) == ["Paris.", "Paris."]
    assert "".join([chunk async for chunk in llm.astream("?")]) == "Paris."


class Tokens(UncertaintyCallbackHandler):
    def __init__(self):
        super().__init__()
        self.chunks = []

    def on_llm_new_token(self, token, *, chunk=None, **kwargs):
        self.chunks.append(chunk)


def test_streaming_calls_back_with_chunks_and_scores_the_last():
    handler = Tokens()
    text = "".join(scripted().stream("?", config={"callbacks": [handler]}))
    assert text == "".join(chunk.text for chunk in handler.chunks) == "Paris."
    assert [bool(chunk.generation_info) for chunk in handler.chunks] == [False] * 5 + [True]
    (call,) = handler.calls
    assert call.text == "Paris."
    assert call.uncertainty["scores"]["perplexity"] == pytest.approx(PERPLEXITY)


def test_the_handler_collects_every_call_of_a_chain():
    handler = UncertaintyCallbackHandler()
    chain = PromptTemplate.from_template("{q}?") | scripted()
    chain.batch([{"q": "a"}, {"q": "b"}], config={"callbacks": [handler]})
    assert [call.text for call in handler.calls] == ["Paris.", "Paris."]
    assert all(call.parent_run_id for call in handler.calls)


def test_stop_strings_of_the_object_and_of_the_call_are_merged():
    llm = scripted(stop=["A"])
    llm.invoke("?", stop=["B", "A"])
    llm.invoke("?")
    assert [request.sampling["stop"] for request in llm.backend.requests] == [["A", "B"], ["A"]]


def test_any_sampling_parameter_can_be_given_here_and_at_the_call():
    llm = scripted(top_p=0.5, temperature=0.3)
    llm.invoke("?", top_p=0.7, seed=1)
    (request,) = llm.backend.requests
    assert request.sampling == {"top_p": 0.7, "seed": 1, "temperature": 0.3, "max_tokens": 256}


def test_a_cache_has_a_key_for_each_set_of_parameters():
    llm = scripted(["one", "two", "three"], cache=InMemoryCache())
    assert [llm.invoke("?", seed=seed) for seed in (1, 2, 1)] == ["one", "two", "one"]
    other = llm.model_copy(update={"methods": ("entropy",)})
    assert other.invoke("?", seed=1) == "three"


def test_what_an_answer_depends_on_identifies_the_model():
    one = scripted(top_k=3).asdict()
    for changed in (
        {"top_k": 4},
        {"n": 2},
        {"temperature": 0.1},
        {"methods": ["entropy"]},
        {"token_scores": True},
        {"chat_template": True},
        {"top_logprobs": 2},
        {"stop": ["x"]},
    ):
        assert scripted(**{"top_k": 3} | changed).asdict() != one


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"methods": ["nonsense"]}, "unknown uncertainty method"),
        ({"n": 0}, "n is 0"),
        ({"n": 129}, "from 1 to 128"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"stop": [""]}, "stop string is empty"),
        ({"output_kind": 1}, "set by the backend"),
        ({"model": "x"}, "a ready backend takes no model"),
    ],
)
def test_bad_arguments_are_refused_at_construction(arguments, error):
    with pytest.raises(errors.UncertaintyError, match=error):
        scripted(**arguments)


def test_too_large_a_k_is_refused_before_the_engine_starts():
    with pytest.raises(errors.InvalidRequestError, match="max_logprobs is 20"):
        VLLMUncertaintyLLM(model="org/name", top_logprobs=21)
    assert VLLMUncertaintyLLM(model="org/name", top_logprobs=21, max_logprobs=30)


def test_a_missing_model_folder_is_refused_at_construction():
    with pytest.raises(errors.ModelNotFoundError, match="no model folder"):
        VLLMUncertaintyLLM(model="./nowhere")


def test_engine_arguments_are_passed_through():
    llm = VLLMUncertaintyLLM(model="org/name", gpu_memory_utilization=0.5, quantization="fp8")
    assert llm.engine_args == {"gpu_memory_utilization": 0.5, "quantization": "fp8"}


def test_unknown_arguments_of_a_call_are_refused():
    with pytest.raises(errors.InvalidRequestError, match="unknown option") as refusal:
        scripted().invoke("?", top_logprob=1)
    assert "did you mean 'top_logprobs'" in str(refusal.value)
    with pytest.raises(errors.ConfigurationError, match="logprobs means nothing"):
        scripted().invoke("?", logprobs=True)


def test_an_empty_prompt_is_refused():
    with pytest.raises(errors.EmptyPromptError):
        scripted().invoke("")
