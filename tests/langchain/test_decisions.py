"""What LangChain's callers see of strategies, abstention and early stop."""

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from tenacity import stop_after_attempt

from uq_llm_integrations import (
    BestOfN,
    Boundary,
    ChatHybridUncertainty,
    ChatVLLMUncertainty,
    EarlyStop,
    HybridUncertaintyLLM,
    Retry,
    ScriptedBackend,
    ScriptedLine,
    SelfConsistency,
    Single,
    Stepwise,
    VLLMEngineBackend,
    VLLMUncertaintyLLM,
    agreement,
    errors,
    score,
)

SURE, UNSURE = ScriptedLine("sure", 0.9), ScriptedLine("unsure", 0.5)
UNCERTAIN = score("mean_nll") > 0.5


def scripted(*script, **arguments) -> VLLMUncertaintyLLM:
    return VLLMUncertaintyLLM(backend=ScriptedBackend(list(script)), **arguments)


def uncertainty(llm, prompt="?"):
    return llm.invoke_with_scores(prompt).uncertainty


def test_the_strategys_choice_is_the_answer():
    llm = scripted(UNSURE, SURE, strategy=BestOfN(2))
    assert llm.invoke("?") == "sure"
    assert uncertainty(llm)["usage"]["generated_tokens"] == 10


def test_an_uncertain_answer_is_annotated_by_default():
    llm = scripted(UNSURE, uncertain_when=UNCERTAIN)
    assert llm.invoke("?") == "unsure"
    metadata = uncertainty(llm)
    assert (metadata["uncertain"], metadata["condition"]) == (True, "mean_nll > 0.5")
    assert uncertainty(scripted(SURE, uncertain_when=UNCERTAIN))["uncertain"] is False


@pytest.mark.parametrize("verb", ["invoke", "stream"])
def test_an_abstention_takes_the_answers_place_and_keeps_it(verb):
    llm = scripted(
        UNSURE, uncertain_when=UNCERTAIN, on_high_uncertainty="abstain", abstention_text="I pass."
    )
    assert "".join(getattr(llm, verb)("?")) == "I pass."
    metadata = uncertainty(llm)
    assert (metadata["decision"], metadata["original_text"]) == ("abstained", "unsure")


@pytest.mark.parametrize("verb", ["invoke", "stream"])
def test_an_error_carries_the_result(verb):
    llm = scripted(UNSURE, uncertain_when=UNCERTAIN, on_high_uncertainty="raise")
    with pytest.raises(errors.HighUncertaintyError) as caught:
        "".join(getattr(llm, verb)("?"))
    assert caught.value.result.candidate.text == "unsure"


def test_a_batch_keeps_what_was_finished_before_an_error():
    llm = VLLMUncertaintyLLM(
        backend=ScriptedBackend({"a": [SURE], "b": [UNSURE]}),
        uncertain_when=UNCERTAIN,
        on_high_uncertainty="raise",
    )
    with pytest.raises(errors.HighUncertaintyError) as caught:
        llm.batch(["a", "b"])
    assert [result.text for result in caught.value.completed.values()] == ["sure"]


def test_a_retry_returns_its_attempts():
    llm = scripted(UNSURE, SURE, strategy=Retry(Single(), UNCERTAIN, stop_after_attempt(2)))
    metadata = uncertainty(llm)
    assert metadata["decision"] == "retried"
    assert [attempt["text"] for attempt in metadata["attempts"]] == ["unsure"]


def test_a_bigger_model_gets_the_prompts_text():
    bigger = ScriptedBackend([ScriptedLine("the bigger one knows", 0.99)])
    strategy = Retry(Single(), UNCERTAIN, stop_after_attempt(1), last_resort=bigger)
    assert scripted(UNSURE, strategy=strategy).invoke("?") == "the bigger one knows"


def test_a_stopped_vote_reports_what_it_saved():
    metadata = uncertainty(scripted("Paris", strategy=SelfConsistency(8), max_tokens=10))
    assert metadata["sampling"] == "stopped_early"
    assert metadata["usage"]["saved_tokens"] == 40


def test_an_early_stop_is_given_in_the_finish_reason():
    llm = scripted(
        ScriptedLine("a long and doubtful answer", 0.5), early_stop=EarlyStop(1.0, window=4)
    )
    (generation,) = llm.generate(["?"]).generations[0]
    assert generation.text == "a lo"
    assert generation.generation_info["finish_reason"] == "early_stop"


def test_an_answer_that_came_to_no_end_of_its_own_is_marked_as_uncertain():
    """Also where all samples were stopped, so that one of them has to stand for the answer."""
    script = ScriptedLine("a long and doubtful answer", 0.5)
    for strategy in (Single(), BestOfN(2), SelfConsistency(2)):
        llm = scripted(script, strategy=strategy, early_stop=EarlyStop(1.0, window=4))
        metadata = uncertainty(llm)
        assert (metadata["sampling"], metadata["uncertain"]) == ("stopped_early", True)
        assert metadata["condition"] == "the answer ended by early_stop"


def test_a_stream_returns_what_a_call_returns():
    class End(BaseCallbackHandler):
        def on_llm_end(self, response, **kwargs):
            self.info = response.generations[0][0].generation_info

    llm = scripted(UNSURE, uncertain_when=UNCERTAIN, token_scores=True)
    streamed = list(llm.stream("?", config={"callbacks": [end := End()]}))
    assert streamed == list("unsure")
    (generation,) = llm.generate(["?"]).generations[0]
    for info in (end.info, generation.generation_info):
        info["uncertainty"]["usage"].pop("seconds")
    assert end.info == generation.generation_info


def test_step_by_step():
    script = {"?": ["a\n", "b\n"], "?a\n": ["end"]}
    llm = VLLMUncertaintyLLM(
        backend=ScriptedBackend(script), strategy=Stepwise(2, boundary=Boundary(("\n",)))
    )
    assert llm.invoke("?") == "a\nend"


@pytest.mark.parametrize(
    "arguments",
    [
        {"strategy": BestOfN(2), "temperature": 0},
        {"strategy": Retry(Single(), UNCERTAIN), "temperature": 0},
        {"strategy": BestOfN(129)},
        {"uncertain_when": agreement() < 0.5},
        {"on_high_uncertainty": "abstain"},
    ],
)
def test_what_can_never_work_is_refused_at_construction(arguments):
    with pytest.raises(errors.ConfigurationError):
        scripted(SURE, **arguments)


def test_caches_have_a_key_for_each_strategy():
    keys = [
        scripted(SURE, strategy=strategy).asdict()["strategy"]
        for strategy in (Single(), BestOfN(2), BestOfN(3))
    ]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("kind", [ChatHybridUncertainty, HybridUncertaintyLLM])
def test_caches_keep_hybrids_with_other_engines_apart(kind):
    kinds = [{}, {"vllm": {"max_model_len": 64}}, {"mode": "resident"}]
    keys = [repr(kind(model="smollm2", **given)._identifying_params) for given in kinds]
    assert len(set(keys)) == 3


def test_caches_keep_ready_backends_of_one_model_apart():
    lengths = (64, 64, 128)
    backends = [VLLMEngineBackend("smollm2", max_model_len=one) for one in lengths]
    keys = [repr(ChatVLLMUncertainty(backend=one)._identifying_params) for one in backends]
    assert keys[0] == keys[1] != keys[2]
