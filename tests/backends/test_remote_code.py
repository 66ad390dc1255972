"""A program that comes with a model is run only where argument and environment say so."""

import pytest

from uq_llm_integrations import (
    ChatVLLMUncertainty,
    ConfigurationError,
    HuggingFaceBackend,
    UncertaintyModel,
    VLLMEngineBackend,
)
from uq_llm_integrations.backends.hybrid import hybrid_backend

ASKED = {"trust_remote_code": True}


def configured(**generator):
    return UncertaintyModel.from_config({"generator": {"model": "org/name", **generator}})


WAYS = {
    "vllm": lambda: VLLMEngineBackend("org/name", **ASKED),
    "huggingface": lambda: HuggingFaceBackend("org/name", **ASKED),
    "hybrid, vllm": lambda: hybrid_backend("org/name", "shared", vllm=ASKED),
    "hybrid, huggingface": lambda: hybrid_backend("org/name", "resident", huggingface=ASKED),
    "file, vllm": lambda: configured(**ASKED),
    "file, huggingface": lambda: configured(type="huggingface", **ASKED),
    "langchain": lambda: ChatVLLMUncertainty(model="org/name", **ASKED),
}
every_way = pytest.mark.parametrize("make", WAYS.values(), ids=WAYS)


@every_way
@pytest.mark.parametrize("value", [None, "", "0", "true"])
def test_the_argument_alone_is_refused(make, value, monkeypatch):
    monkeypatch.delenv("UQ_LLM_ALLOW_REMOTE_CODE", raising=False)
    if value is not None:
        monkeypatch.setenv("UQ_LLM_ALLOW_REMOTE_CODE", value)
    with pytest.raises(ConfigurationError, match="UQ_LLM_ALLOW_REMOTE_CODE=1"):
        make()


@every_way
def test_both_together_are_accepted(make, monkeypatch):
    monkeypatch.setenv("UQ_LLM_ALLOW_REMOTE_CODE", "1")
    assert make()


def test_the_environment_alone_switches_nothing_on(monkeypatch):
    from transformers import AutoConfig

    seen = []

    def read(path, **options):
        seen.append(options)
        raise OSError("no such model")

    monkeypatch.setenv("UQ_LLM_ALLOW_REMOTE_CODE", "1")
    monkeypatch.setattr(AutoConfig, "from_pretrained", read)
    with HuggingFaceBackend("org/name") as backend, pytest.raises(ConfigurationError):
        backend.start()
    assert seen == [{}]
    assert "trust_remote_code" not in VLLMEngineBackend("org/name")._arguments
