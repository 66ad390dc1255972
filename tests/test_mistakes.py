"""Values of a wrong kind, whoever takes them: an error of ours that names what they are for."""

import math
from functools import partial

import pytest

import uq_llm_integrations as uq
from uq_llm_integrations import ConfigurationError, langchain
from uq_llm_integrations.backends.hybrid import hybrid_backend


def scripted_chat():
    return langchain.ChatVLLMUncertainty(backend=backend())


SELF = {}
SELF["a"] = SELF

DEEP = []
for _ in range(5000):
    DEEP = [DEEP]


class Unwritable:
    def __repr__(self):
        raise RuntimeError("no")


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
        (uq.BestOfN, "method", [3, {}]),
        (uq.BestOfN, "settle", [3, "x", None]),
        (uq.Policy, "abstention_text", [3, None]),
        (uq.ServedJudge, "entails", [3, None]),
        (uq.EmbeddingSimilarity, "layer", ["x", None, True]),
        (uq.Classifier, "model", [3, None, {}]),
        (uq.SentenceEmbeddings, "model", [3, None, {}]),
        (uq.SentenceEmbeddings, "same_at", [None, True, "x", 0, 1, math.nan]),
        (lambda **given: uq.Classifier("a/b", **given), "batch_size", [0, "x", None]),
        (
            lambda **given: uq.VLLMStepGenerator(uq.ScriptedBackend(["a"]), **given),
            "strategy",
            [3, (), {}],
        ),
        (retry, "temperatures", [None, "0.5", {}]),
        (uq.Boundary, "strings", [None, "x", 3]),
        (uq.Boundary, "thinking", [True, "x"]),
        (uq.Boundary, "pattern", [True, b"x"]),
        (uq.Boundary, "test", [3]),
        (uq.Boundary, "thinking", [("<think>",)]),
        (uq.Stepwise, "boundary", [3, None, {"strings": ["."]}]),
        (uq.SelfConsistency, "answer", [3, None]),
        (uq.BestOfN, "answer", [3, None]),
        (uq.agreement, "answer", [3, None]),
        (retry, "wait", [3]),
        (retry, "before", [3]),
        (retry, "last_resort", [3, "smollm2"]),
        (lambda **given: uq.RetryErrors(uq.Single(), **given), "stop", [3]),
        (lambda **given: uq.Abstain(uq.Single(), "entropy > 1", **given), "text", [None, 3]),
        (uq.EarlyStop, "above", ["x", None, True, math.nan]),
        (lambda **given: uq.EarlyStop(1.0, **given), "window", [0, "x", None, 1.5, True]),
        (lambda **given: uq.EarlyStop(1.0, **given), "statistic", ["x", None, []]),
        (uq.SelfConsistency, "settle", ["", b""]),
        (uq.SelfConsistency, "give_up", ["", []]),
        (uq.MethodOptions, "hedges", [None, 3]),
        (uq.MethodOptions, "entailment", [None, 3, "judge", uq.ServedJudge]),
        (uq.MethodOptions, "similarity", [None, 3, "embeddings"]),
        (uq.MethodOptions, "density", [3, "folder"]),
        (uq.MethodOptions, "head", [3, "folder"]),
        (uq.MethodOptions, "claims", [None, 3]),
        (uq.MethodOptions, "span", [3, "(", "(a)(b)", b"x"]),
        (uq.MethodOptions, "layer", [None, "x", 1.5, True]),
        (uq.MethodOptions, "samples", [None, True, "5"]),
        (uq.MethodOptions, "temperature", [None, True, math.inf, 10**400]),
        (uq.ScriptedBackend, "script", [3, None, "Paris", [3], {"?": "Paris"}, {3: ["Paris"]}]),
        (lambda **given: uq.ScriptedLine(probability=0.5, **given), "text", [None, 3]),
        (lambda **given: uq.ScriptedBackend(["a"], **given), "delay", [None, -1, math.nan]),
        (uq.HybridUncertaintyGenerator, "model", [3, True]),
        (lambda **given: uq.ScriptedBackend(["a"], **given), "probability", [None, "1"]),
        (uq.VLLMEngineBackend, "model", [True, b"x"]),
        (lambda **given: uq.VLLMEngineBackend("smollm2", **given), "max_n", [None, 0, 1.5]),
        (lambda **given: uq.VLLMEngineBackend("smollm2", **given), "deadline", [0, -1, math.nan]),
        (lambda **given: uq.VLLMEngineBackend("smollm2", **given), "deadline", [None, 10**400]),
        (
            lambda **given: uq.VLLMEngineBackend("smollm2", **given),
            "tensor_parallel_size",
            ["x", 0, None, {}],
        ),
        (lambda **given: uq.VLLMEngineBackend("smollm2", **given), "max_logprobs", ["x", -2, None]),
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


@pytest.mark.parametrize("value", [DEEP, Unwritable(), "x" * 10**6], ids=type)
@pytest.mark.parametrize(
    "call",
    [
        lambda value: uq.Settings(uncertain_when=value),
        lambda value: uq.Settings(methods=[value]),
        lambda value: uq.Settings(sampling=[value]),
        lambda value: uq.Settings(temperature=value),
        lambda value: uq.UncertaintyModel(backend()).with_options(sampling=[value]),
        lambda value: uq.UncertaintyModel(backend()).chat([value]),
        lambda value: uq.UncertaintyModel(backend()).chat("?", tools=[value]),
        lambda value: uq.UncertaintyModel(backend()).chat("?", tool_choice=[value]),
        lambda value: uq.UncertaintyModel(backend()).chat("?", parallel_tool_calls=[value]),
        lambda value: uq.UncertaintyModel(backend()).score_truncated("?", value and [[value]]),
        lambda value: uq.BestOfN(2, by=[value]),
        lambda value: uq.Retry(value, "entropy > 1"),
        lambda value: uq.score("entropy") > [value],
        lambda value: chat(engine_args=[value]),
        lambda value: scripted_chat().bind_tools([value]),
        lambda value: scripted_chat().invoke("?", tools=value),
        lambda value: scripted_chat().with_structured_output([value]),
        lambda value: uq.load_threshold([value], "entropy"),
        lambda value: uq.load_threshold("no.json", [value]),
        lambda value: uq.HybridBackend(backend(), [value]),
        lambda value: hybrid_backend("smollm2", mode=[value]),
    ],
)
def test_a_value_that_cannot_be_written_is_refused_as_any_other(call, value):
    with pytest.raises(uq.UncertaintyError) as caught:
        call(value)
    assert 0 < len(str(caught.value)) < 8000  # there may be all known names in it


def test_a_message_shows_no_secret_of_a_value():
    with pytest.raises(ConfigurationError) as caught:
        uq.Settings(sampling=[{"hf_token": "hf_s3cret"}])
    assert "s3cret" not in str(caught.value)


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


@pytest.mark.parametrize("tools", [{}, "", 0, False])
def test_tools_are_a_list(tools):
    with pytest.raises(uq.InvalidRequestError, match="tools is"):
        uq.UncertaintyModel(backend()).chat("?", tools=tools)


@pytest.mark.parametrize("make", [tuple, uq.Conversation], ids=["list", "conversation"])
def test_a_role_is_a_text(make):
    with pytest.raises(uq.InvalidRequestError, match="role of a message is 3"):
        uq.UncertaintyModel(backend()).chat(make(({"role": 3, "content": "x"},)))


def test_what_is_called_for_a_closed_stream_is_a_function():
    with pytest.raises(ConfigurationError, match="on_closed is 3"):
        list(uq.UncertaintyModel(backend()).stream("?", on_closed=3))


@pytest.mark.parametrize("method", ["resume", "result"])
def test_a_state_to_go_on_from_is_one(method):
    with pytest.raises(uq.InvalidRequestError, match="state is None"):
        getattr(uq.VLLMStepGenerator(backend()), method)(None)


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


WRONG_OPTIONS = [
    {"max_tokens": "ten"},
    {"top_p": "x"},
    {"temperature": []},
    {"n": 10**6},
    {"sampling": {"top_p": 3}},
]


@pytest.mark.parametrize("options", WRONG_OPTIONS, ids=str)
def test_a_wrong_option_is_a_mistake_of_the_configuration_and_of_a_request(options):
    backend = uq.ScriptedBackend(["Paris"])
    model = uq.UncertaintyModel(backend)
    makers = [uq.UncertaintyModel, uq.VLLMStepGenerator]
    calls = [partial(make, backend, **options) for make in makers]
    calls.append(partial(uq.ChatVLLMUncertainty, backend=backend, **options))
    calls += [partial(model.generate, "?", **options), partial(model.with_options, **options)]
    for call in calls:
        for kind in (uq.ConfigurationError, uq.InvalidRequestError):
            with pytest.raises(kind):
                call()
