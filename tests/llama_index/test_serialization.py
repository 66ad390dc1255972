"""Models as plain data, as LlamaIndex stores them."""

import json

import pytest

from tests.llama_index.scripted import scripted
from uq_llm_integrations import BestOfN, EarlyStop, ScriptedBackend, errors, score
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM
from uq_llm_integrations.strategies.conditions import Custom


def test_a_model_is_plain_data_and_back():
    llm = VLLMUncertaintyLLM(
        model="org/name",
        max_model_len=512,
        top_p=0.5,
        stop=["x"],
        methods=("entropy",),
        early_stop=EarlyStop(3.0, window=8),
        system_prompt="Be brief.",
    )
    back = VLLMUncertaintyLLM.from_json(llm.to_json())
    assert back.to_dict() == llm.to_dict()
    assert back.core.identity == llm.core.identity
    assert back.early_stop == EarlyStop(3.0, window=8)


def test_a_ready_backend_is_left_out_and_given_again():
    data = scripted(temperature=0.3).to_dict()
    assert "backend" not in data and data["class_name"] == "VLLMUncertaintyLLM"
    back = VLLMUncertaintyLLM.from_dict(data, backend=ScriptedBackend(["Oslo."]))
    assert (back.temperature, back.complete("?").text) == (0.3, "Oslo.")


def test_strategies_and_conditions_are_plain_data_too():
    given = {"strategy": BestOfN(2), "uncertain_when": score("perplexity") > 0.1 + 0.2}
    data = json.loads(scripted(**given).to_json())
    assert data["uncertain_when"] == "perplexity > 0.30000000000000004"
    back = VLLMUncertaintyLLM.from_dict(data, backend=ScriptedBackend(["Oslo."]))
    assert back.strategy == BestOfN(2) and back.uncertain_when == given["uncertain_when"]


def test_what_is_no_plain_data_is_described_and_has_to_be_given_again():
    given = {"uncertain_when": Custom(lambda result: True, "entropy > 2")}
    given |= {"messages_to_prompt": lambda messages: "?", "backend": ScriptedBackend(["Oslo."])}
    llm = VLLMUncertaintyLLM(**given)
    data = json.loads(llm.to_json())
    assert data["not_plain"].keys() == given.keys()
    assert data == json.loads(VLLMUncertaintyLLM(**given).to_json())
    with pytest.raises(errors.ConfigurationError, match=r"backend, .* cannot be read"):
        VLLMUncertaintyLLM.from_dict(data)
    assert VLLMUncertaintyLLM.from_dict(data, **given) == llm


def test_a_secret_is_not_written():
    llm = VLLMUncertaintyLLM(model="org/name", hf_token="s3cret")
    assert "s3cret" not in llm.to_json()


def test_an_object_built_of_its_own_fields_equals_it():
    llm = VLLMUncertaintyLLM(model="smollm2", max_model_len=64, strategy=BestOfN(2), top_p=0.5)
    again = VLLMUncertaintyLLM(**{name: getattr(llm, name) for name in type(llm).model_fields})
    assert again == llm and again.backend is llm.backend
