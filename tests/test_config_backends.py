"""The configuration file's backends, methods and secrets, in the source document's spellings."""

import json

import pytest
from typer.testing import CliRunner

from uq_llm_integrations import (
    Classifier,
    Configuration,
    ConfigurationError,
    EmbeddingSimilarity,
    HuggingFaceBackend,
    HuggingFaceUncertaintyLLM,
    HybridBackend,
    HybridUncertaintyGenerator,
    HybridUncertaintyLLM,
    MethodUnavailableError,
    VLLMEngineBackend,
    VLLMUncertaintyLLM,
)
from uq_llm_integrations.cli import app

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
    assert read.generator.arguments()["engine_args"] == {"hf_token": "hf_1"}


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
