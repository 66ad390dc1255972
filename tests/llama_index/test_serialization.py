"""Models as plain data, as LlamaIndex stores them."""

import json

import pytest

from tests.llama_index.scripted import scripted
from uq_llm_integrations import BestOfN, EarlyStop, ScriptedBackend, errors, score
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM


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


def test_what_is_no_plain_data_is_described_and_has_to_be_given_again():
    given = {"strategy": BestOfN(2), "uncertain_when": score("perplexity") > 1.65}
    data = json.loads(scripted(**given).to_json())
    assert data["not_plain"]["uncertain_when"] == "perplexity > 1.65"
    backend = ScriptedBackend(["Oslo."])
    with pytest.raises(errors.ConfigurationError, match="strategy, uncertain_when cannot be read"):
        VLLMUncertaintyLLM.from_dict(data, backend=backend)
    back = VLLMUncertaintyLLM.from_dict(data, backend=backend, **given)
    assert back.strategy == BestOfN(2)
