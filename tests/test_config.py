"""The configuration file: what it says, in the source document's spellings, and its errors."""

import json

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from uq_llm_integrations import (
    Abstain,
    BestOfN,
    Boundary,
    ChatHybridUncertainty,
    ChatVLLMUncertainty,
    Classifier,
    Configuration,
    ConfigurationError,
    EarlyStop,
    EmbeddingSimilarity,
    HuggingFaceBackend,
    HuggingFaceUncertaintyLLM,
    HybridBackend,
    HybridUncertaintyGenerator,
    HybridUncertaintyLLM,
    MethodUnavailableError,
    Retry,
    Single,
    Stepwise,
    UncertaintyError,
    UncertaintyModel,
    VLLMEngineBackend,
    VLLMServerBackend,
    VLLMStepGenerator,
    VLLMUncertaintyLLM,
    agreement,
    score,
    token_max,
    worst_window,
)
from uq_llm_integrations.cli import app
from uq_llm_integrations.config import load_mapping

FILE = """
generator: {type: vllm, model: org/name, gpu_memory_utilization: 0.9}
sampling: {temperature: 0.7, max_tokens: 128}
scorer: {type: [entropy, perplexity]}
strategy:
  type: retry
  when: agreement < 0.5
  attempts: 2
  temperatures: [0.5, 0.3]
  strategy: {type: best_of_n, n: 8, by: borda}
uncertain_when: mean_nll > 0.6 or not worst_window(entropy, 8) <= 3
on_high_uncertainty: abstain
early_stop: {above: 3.0, window: 8}
"""
HYBRID = """
generator:
  type: hybrid
  model: org/name
  vllm: {gpu_memory_utilization: 0.45}
  huggingface: {dtype: float16}
scorer:
  type: [entropy, rauq, semantic_entropy]
method_options: {samples: 3, entailment: {classifier: some/nli}, similarity: embeddings}
"""
RESEARCH = """
generator: {type: huggingface, model: org/name, sequential_generation: true}
scorer: {type: eigen_score}
"""


def test_a_file_says_all_that_the_class_takes(tmp_path):
    path = tmp_path / "uncertainty.yaml"
    path.write_text(FILE)
    llm = VLLMUncertaintyLLM.from_config(path)
    assert (llm.model, llm.engine_args) == ("org/name", {"gpu_memory_utilization": 0.9})
    assert (llm.temperature, llm.max_tokens) == (0.7, 128)
    assert llm.methods == ("entropy", "perplexity")
    assert isinstance(llm.strategy, Retry)
    assert llm.strategy.strategy == BestOfN(8, "borda")
    assert llm.strategy.when == (agreement() < 0.5)
    assert llm.strategy.attempts == 2
    assert llm.strategy.temperatures == (0.5, 0.3)
    assert llm.uncertain_when == (score("mean_nll") > 0.6) | ~(worst_window("entropy", 8) <= 3)
    assert llm.on_high_uncertainty == "abstain"
    assert llm.early_stop == EarlyStop(3.0, window=8)


SERVERS = """
generator:
  type: vllm_server
  base_url: [http://one:8000/v1, http://two:8000/v1]
  model: org/name
  headers: {X-Team: red}
  connect_timeout: 3
  deadline: 9
scorer: {type: entropy}
"""


def test_a_file_names_servers(tmp_path):
    path = tmp_path / "uncertainty.yaml"
    path.write_text(SERVERS)
    expected = VLLMServerBackend(
        ["http://one:8000", "http://two:8000"],
        model="org/name",
        headers={"X-Team": "red"},
        connect_timeout=3,
        deadline=9,
    )
    for kind in (VLLMUncertaintyLLM, ChatVLLMUncertainty):
        assert kind.from_config(path).backend == expected
    for one in (VLLMStepGenerator, HybridUncertaintyGenerator):
        stepwise = {"type": "stepwise"} if one is VLLMStepGenerator else {"type": "single"}
        source = load_mapping(path) | {"strategy": stepwise}
        assert one.from_config(source).model.backend == expected


def test_an_address_says_that_servers_are_meant():
    backend = Configuration.read({"generator": {"base_url": "http://one"}}).generator.backend()
    assert backend == VLLMServerBackend("http://one")


def test_a_hybrid_chat_has_the_key_of_its_servers():
    given = {"model": "org/name", "mode": "resident", "api_key": "key"}
    for server in ({"vllm": {"base_url": "http://one"}}, {"base_url": "http://one"}):
        for kind in (ChatHybridUncertainty, HybridUncertaintyLLM):
            served = VLLMServerBackend("http://one", model="org/name", api_key="key")
            expected = HybridBackend(served, HuggingFaceBackend("org/name"))
            assert kind(**given, **server).backend == expected


def test_servers_generate_for_a_hybrid():
    file = {"type": "hybrid", "model": "org/name", "vllm": {"base_url": "http://one"}}
    llm = HybridUncertaintyLLM.from_config({"generator": {**file, "mode": "resident"}})
    both = HybridBackend(
        VLLMServerBackend("http://one", model="org/name"), HuggingFaceBackend("org/name")
    )
    assert llm.backend == both
    for mode in ("shared", "sequential"):
        with pytest.raises(ConfigurationError, match=f"mode is '{mode}'.*'resident'"):
            HybridUncertaintyLLM.from_config({"generator": {**file, "mode": mode}})


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        ({}, "base_url: Field required"),
        ({"base_url": []}, "base_url is"),
        ({"base_url": "one:8000"}, "base_url is 'one:8000'"),
        ({"base_url": "http://one", "max_model_len": 9}, "max_model_len is no argument"),
        ({"base_url": "http://one", "conect_timeout": 9}, "did you mean 'connect_timeout'"),
        ({"base_url": "http://one", "deadline": -1}, "deadline is -1"),
        ({"base_url": "http://one", "routes": "some"}, "routes is 'some'"),
    ],
)
def test_mistakes_about_servers_are_named(generator, message):
    source = {"generator": {"type": "vllm_server", **generator}}
    for read in (ChatVLLMUncertainty.from_config, UncertaintyModel.from_config):
        with pytest.raises(ConfigurationError, match=message):
            read(source)
    if generator.get("base_url"):
        with pytest.raises(ConfigurationError, match=message):
            ChatVLLMUncertainty(**generator)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": object()}, "engine is of an engine in this program"),
        ({"restart_engine": 3}, "restart_engine is of an engine in this program"),
        ({"gpu_memory_utilization": 0.5}, "gpu_memory_utilization is no argument"),
        ({"base_url": None, "api_key": "k", "model": "m"}, "api_key is that of servers"),
    ],
)
def test_what_is_of_an_engine_is_refused_with_servers(given, message):
    with pytest.raises(ConfigurationError, match=message):
        VLLMUncertaintyLLM(**{"base_url": "http://one", **given})


def test_a_file_says_what_only_chat_classes_have():
    file = {
        "generator": {"type": "vllm", "model": "org/name"},
        "tool_parser": "hermes",
        "chat_template_kwargs": {"enable_thinking": False},
        "stop_if": "worst_window(entropy, 8) > 3",
    }
    llm = ChatVLLMUncertainty.from_config(file)
    assert (llm.tool_parser, llm.chat_template_kwargs) == ("hermes", {"enable_thinking": False})
    assert llm.stop_if == (worst_window("entropy", 8) > 3)
    with pytest.raises(ConfigurationError, match="tool_parser means nothing"):
        VLLMUncertaintyLLM.from_config(file)


def test_a_step_generator_takes_a_stepwise_strategy():
    file = {
        "generator": {"type": "vllm", "model": "org/name"},
        "strategy": {"type": "stepwise", "n": 3, "by": "entropy"},
        "scorer": {"type": "entropy"},
        "sampling": {"temperature": 0.4},
    }
    steps = VLLMStepGenerator.from_config(file)
    assert steps.model.settings.strategy == Stepwise(3, "entropy")
    assert steps.model.settings.temperature == 0.4
    with pytest.raises(ConfigurationError, match="'best_of_n', not 'stepwise'"):
        VLLMStepGenerator.from_config(file | {"strategy": {"type": "best_of_n"}})


def test_what_is_not_said_stays_at_its_default():
    assert Configuration.read({"generator": {"model": "org/name"}}).strategy == Single()


def test_a_scorer_is_another_way_to_write_methods():
    scorer = Configuration.read({"generator": {"model": "m"}, "scorer": {"type": "maxprob"}})
    assert scorer.methods == ("maxprob",)


def test_strategies_nest():
    section = {
        "type": "abstain",
        "when": "token_max(entropy) > 4",
        "action": "raise",
        "strategy": {"type": "stepwise", "n": 2, "boundary": {"strings": ["\n"], "max_tokens": 9}},
    }
    configuration = Configuration.read({"generator": {"model": "m"}, "strategy": section})
    stepwise = Stepwise(2, boundary=Boundary(("\n",), max_tokens=9))
    expected = Abstain(stepwise, token_max("entropy") > 4, "raise")
    assert configuration.strategy == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": {"type": "best"}}, "strategy"),
        ({"strategy": {"type": "best_of_n", "N": 3}}, "strategy.best_of_n.N"),
        ({"strategy": {"type": "retry", "when": "entropie > 1"}}, "did you mean 'entropy'"),
        ({"strategy": {"type": "retry_errors", "attempts": 0}}, "attempts is 0"),
        ({"uncertain_when": "entropy"}, "wanted a comparison"),
        ({"on_high_uncertainty": "stop"}, "on_high_uncertainty: .*annotate"),
        ({"generator": {"type": "vllm"}}, "generator.vllm.model: Field required"),
        ({"nonsense": 1}, "unknown option 'nonsense'"),
    ],
)
def test_errors_name_the_place(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Configuration.read({"generator": {"model": "m"}} | change)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Configuration.read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Configuration.read(tmp_path / "bad.yaml")


@pytest.mark.parametrize("source", [None, [], 3, {5: 3}, {"generator": {}, "scorer": None}])
def test_what_is_no_configuration_is_refused(source):
    with pytest.raises(ConfigurationError):
        Configuration.read(source)


@pytest.mark.parametrize("kind", [ChatVLLMUncertainty, VLLMUncertaintyLLM])
@pytest.mark.parametrize("name", ["max_n", "deadline", "restart_engine"])
def test_a_generator_takes_what_the_backend_takes(kind, name):
    llm = kind.from_config({"generator": {"model": "smollm2", name: 7}})
    expected = VLLMEngineBackend("smollm2", **{name: 7})
    assert llm.backend == expected
    assert llm.backend.capabilities.max_n == expected.capabilities.max_n


def written(tmp_path, text: str):
    path = tmp_path / "uncertainty.yaml"
    path.write_text(text)
    return path


def test_a_hybrid_with_a_second_model_is_described(tmp_path):
    llm = HybridUncertaintyLLM.from_config(written(tmp_path, HYBRID))
    assert isinstance(llm.backend, HybridBackend)
    assert llm.mode == "resident"
    assert llm.vllm == {"gpu_memory_utilization": 0.45}
    assert llm.methods == ("entropy", "rauq", "semantic_entropy")
    assert llm.method_options.samples == 3
    assert llm.method_options.entailment == Classifier("some/nli")
    assert llm.method_options.similarity == EmbeddingSimilarity()


def test_without_a_second_model_the_inside_is_shared():
    llm = HybridUncertaintyLLM.from_config({"generator": {"type": "hybrid", "model": "org/name"}})
    assert isinstance(llm.backend, VLLMEngineBackend)
    assert llm.mode == "shared"


def test_a_hugging_face_model_is_described(tmp_path):
    llm = HuggingFaceUncertaintyLLM.from_config(written(tmp_path, RESEARCH))
    assert isinstance(llm.backend, HuggingFaceBackend)
    assert llm.methods == ("eigen_score",)


def test_the_generator_reads_the_same_file(tmp_path):
    generator = HybridUncertaintyGenerator.from_config(written(tmp_path, HYBRID))
    assert isinstance(generator.model.backend, HybridBackend)


def test_a_file_for_another_class_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="VLLMUncertaintyLLM is for 'vllm'"):
        VLLMUncertaintyLLM.from_config(written(tmp_path, RESEARCH))


def test_a_method_that_cannot_be_had_is_refused_before_a_model_is_loaded():
    parallel = {"type": "vllm", "model": "org/name", "tensor_parallel_size": 2}
    with pytest.raises(MethodUnavailableError, match="rauq needs hidden states or attention"):
        VLLMUncertaintyLLM.from_config({"generator": parallel, "scorer": {"type": "rauq"}})


def test_options_that_would_do_nothing_are_refused():
    arguments = {"model": "org/name", "mode": "shared", "huggingface": {"dtype": "float16"}}
    with pytest.raises(ConfigurationError, match=r"'dtype'.* do nothing"):
        HybridUncertaintyLLM(**arguments)


def test_a_secret_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hf_1")
    generator = {"type": "vllm", "model": "m", "hf_token": "${MY_TOKEN}"}
    read = Configuration.read({"generator": generator})
    assert read.generator.arguments()["engine_args"] == {"hf_token": SecretStr("hf_1")}


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        ({"model": "${HOME}"}, "generator.model: only secrets come from the environment"),
        ({"model": "m", "hf_token": "${UNSET_TOKEN}"}, "no variable UNSET_TOKEN"),
    ],
)
def test_nothing_else_does(generator, message):
    with pytest.raises(ConfigurationError, match=message):
        Configuration.read({"generator": generator})


def test_the_json_schema_is_printed():
    schema = json.loads(CliRunner().invoke(app, ["schema"]).output)
    assert {"generator", "scorer", "method_options", "strategy"} <= schema["properties"].keys()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("generator: {model: m}\nmax_tokens: ten", 2),
        ("generator: {model: m}\nsampling:\n  top_k: 3\n  max_tokens: ten", 4),
        ("generator: {model: m}\nsampling:\n  top_k: 3\n  trust_remote_code: true", 4),
        ("generator: {model: m}\n\nuncertain_when: worst_window(entropy) > 3", 3),
        ("generator: {model: m}\nstrategy:\n  type: best_of_n\n  n: null", 4),
        ("generator: {model: m}\nscorer:\n  type:\n  - entropie", 3),
        ("generator: {model: m}\n\ntop_p: " + "9" * 400, 3),
        ("generator:\n  model: ${HOME}", 2),
        ("generator: {model: m}\nnonsense: 1", 2),
        ("generator: {model: m}\nn: 2\nn: 3", 3),
        ("generator: {model: m}\nn: 2020-99-99", 2),
        ("generator: {model: m}\n\nn: " + "9" * 5000, 3),
        ("generator: {model: m}\nearly_stop:\n  above: 1\n  window: 0", 4),
        ("generator: {model: m}\nearly_stop:\n  window: 2\n  above: .nan", 4),
    ],
)
def test_a_mistake_in_a_file_is_named_with_path_and_line(tmp_path, text, line):
    path = written(tmp_path, text)
    with pytest.raises(UncertaintyError, match=rf"(?s)uncertainty\.yaml.*line {line}\b"):
        Configuration.read(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("generator: {model: m}\nn: 1000000", 2),
        ("generator: {model: m}\nsampling:\n  n: 1000000", 3),
        ("generator: {model: m}\nstrategy:\n  type: best_of_n\n  n: 1000000", 4),
        ("generator: {model: m}\ntop_logprobs: 50", 2),
        ("generator:\n  model: m\n  deadline: .nan", 3),
        ("generator:\n  model: m\n  tensor_parallel_size: x", 3),
    ],
)
@pytest.mark.parametrize(
    "kind",
    [UncertaintyModel, ChatVLLMUncertainty, HybridUncertaintyGenerator],
    ids=lambda k: k.__name__,
)
def test_what_shows_once_a_file_was_read_has_its_path_and_line_too(tmp_path, kind, text, line):
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError, match=rf"uncertainty\.yaml, line {line}: "):
        kind.from_config(path)


def test_files_that_are_none_are_refused(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("generator: {model: café}".encode("latin-1"))
    for source, message in ((latin, "not written in UTF-8"), ("a\0b", "no file"), (tmp_path, "no")):
        with pytest.raises(ConfigurationError, match=message):
            Configuration.read(source)
