"""Values of a wrong kind, whoever takes them: an error of ours that names what they are for."""

import math

import pytest

import uq_llm_integrations as uq
from uq_llm_integrations import ConfigurationError, langchain
from uq_llm_integrations.backends.hybrid import hybrid_backend

SELF = {}
SELF["a"] = SELF


def backend():
    return uq.ScriptedBackend(["Paris"])


def retry(**given):
    return uq.Retry(uq.Single(), "entropy > 1", **given)


def chat(**given):
    return langchain.ChatVLLMUncertainty(model="smollm2", **given)


@pytest.mark.parametrize(
    ("make", "name", "values"),
    [
        (uq.BestOfN, "by", [None, []]),
        (uq.BestOfN, "power", [None, True, math.nan, math.inf, 10**400]),
        (uq.BestOfN, "regret", ["", 10**400]),
        (retry, "temperatures", [None, "0.5", {}]),
        (uq.Boundary, "strings", [None, "x", 3]),
        (uq.Boundary, "thinking", [True, "x"]),
        (uq.Boundary, "pattern", [True, b"x"]),
        (uq.SelfConsistency, "settle", ["", b""]),
        (uq.SelfConsistency, "give_up", ["", []]),
        (uq.MethodOptions, "hedges", [None, 3]),
        (lambda **given: uq.ScriptedBackend(["a"], **given), "probability", [None, "1"]),
        (uq.VLLMEngineBackend, "model", [True, b"x"]),
        (lambda **given: uq.VLLMEngineBackend("smollm2", **given), "max_n", [None, 0, 1.5]),
        (lambda **given: uq.VLLMEngineBackend("smollm2", **given), "deadline", [0, -1, math.nan]),
        (lambda **given: uq.VLLMEngineBackend("smollm2", **given), "deadline", [None, 10**400]),
        (lambda **given: uq.HuggingFaceBackend("smollm2", **given), "max_n", [None, 0]),
        (
            lambda **given: uq.HuggingFaceBackend("smollm2", **given),
            "gpu_memory_utilization",
            ["", [], 2],
        ),
        (chat, "engine_args", [True, "x"]),
        (lambda **given: hybrid_backend("smollm2", **given), "mode", ["resident ", 3, None]),
        (lambda **given: hybrid_backend("smollm2", **given), "vllm", [3, "x"]),
        (lambda **given: hybrid_backend("smollm2", **given), "huggingface", [3]),
    ],
    ids=str,
)
def test_a_value_of_a_wrong_kind_is_refused_by_its_name(make, name, values):
    for value in values:
        with pytest.raises(ConfigurationError, match=name.removesuffix("s")):
            make(**{name: value})


@pytest.mark.parametrize(
    "given",
    [
        {"texts": None},
        {"texts": "Paris"},
        {"texts": [None]},
        {"texts": [(1, "a")]},
        {"texts": [(10**30,)]},
        {"texts": ["P"], "generated": [3]},
        {"texts": ["P"], "generated": None},
    ],
    ids=str,
)
def test_truncated_texts_are_texts_or_token_ids(given):
    with pytest.raises(uq.InvalidRequestError):
        uq.UncertaintyModel(backend()).score_truncated("?", **given)


def test_an_option_that_contains_itself_is_refused():
    for make in (uq.Settings, chat):
        with pytest.raises(ConfigurationError, match="contains itself"):
            make(chat_template_kwargs=SELF)
    with pytest.raises(ConfigurationError, match="contains itself"):
        chat(hf_overrides=SELF)


@pytest.mark.parametrize("prompts", [None, "one", 3])
def test_prompts_are_a_list_of_texts(prompts):
    with pytest.raises(uq.InvalidRequestError, match="list of texts"):
        uq.UncertaintyModel(backend()).generate_all(prompts)


def test_a_wrong_sampling_parameter_in_a_configuration_is_its_mistake():
    for options in ({"max_tokens": "ten"}, {"n": 10**6}, {"sampling": {"top_k": "x"}}):
        with pytest.raises(ConfigurationError):
            uq.UncertaintyModel.from_config({"generator": {"model": "smollm2"}, **options})


@pytest.mark.parametrize(
    "sampling",
    [
        {"methods": ["entropy"]},
        {"model": "m"},
        {"sampling": {}},
        {"trust_remote_code": True},
        [],
        None,
    ],
    ids=str,
)
def test_sampling_sets_sampling_parameters_alone(sampling):
    for make in (uq.Settings, chat):
        with pytest.raises(ValueError, match="sampling"):
            make(sampling=sampling)
    with pytest.raises(ConfigurationError, match="sampling"):
        uq.Configuration.read({"generator": {"model": "smollm2"}, "sampling": sampling})
