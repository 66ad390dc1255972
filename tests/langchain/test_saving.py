"""Saving by LangChain's own functions, and building an object again from its fields."""

import copy
import json

import pytest
from langchain_core.load import dumpd, dumps, load, loads
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableSequence

from tests.langchain.scripted_chat import scripted
from uq_llm_integrations import (
    Abstain,
    BestOfN,
    ChatHuggingFaceUncertainty,
    ChatHybridUncertainty,
    ChatVLLMUncertainty,
    EarlyStop,
    EmbeddingSimilarity,
    HuggingFaceUncertaintyLLM,
    HybridUncertaintyLLM,
    MethodOptions,
    Retry,
    ScriptedBackend,
    VLLMUncertaintyLLM,
    agreement,
    errors,
    score,
)
from uq_llm_integrations.strategies.conditions import Custom

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")

OPTIONS = {
    "methods": ["entropy", "perplexity"],
    "strategy": Abstain(Retry(BestOfN(2), "entropy > 1", temperatures=(0.3,)), "entropy > 2"),
    "uncertain_when": (score("entropy") > 0.1 + 0.2)
    & (score("maxprob") > 1)
    & ~(agreement() > 0.9),
    "on_high_uncertainty": "abstain",
    "early_stop": EarlyStop(1.5),
    "method_options": MethodOptions(samples=3, similarity=EmbeddingSimilarity()),
    "n": 2,
    "top_p": 0.5,
    "stop": ["!"],
    "max_tokens": None,
}

OBJECTS = [
    ChatVLLMUncertainty(model="smollm2", max_model_len=64, api_key="secret", **OPTIONS),
    ChatHuggingFaceUncertainty(model="smollm2", dtype="float32", **OPTIONS),
    ChatHybridUncertainty(model="smollm2", mode="resident", vllm={"max_model_len": 64}, **OPTIONS),
    VLLMUncertaintyLLM(model="smollm2", max_model_len=64, **OPTIONS),
    HuggingFaceUncertaintyLLM(model="smollm2", dtype="float32", **OPTIONS),
    HybridUncertaintyLLM(model="smollm2", mode="sequential", **OPTIONS),
    ChatVLLMUncertainty(base_url="http://one:8000/v1", connect_timeout=3.0, **OPTIONS),
    VLLMUncertaintyLLM(base_url=["http://one", "http://two"], model="m", deadline=9, **OPTIONS),
    ChatHybridUncertainty(
        model="smollm2", mode="resident", vllm={"base_url": "http://one"}, **OPTIONS
    ),
]
EVERY = pytest.mark.parametrize("one", OBJECTS, ids=[type(one).__name__ for one in OBJECTS])


def allowed(*classes):
    return {"allowed_objects": list(classes), "valid_namespaces": ["uq_llm_integrations"]}


@EVERY
def test_an_object_is_loaded_as_it_was_saved(one):
    without_key = one.model_copy(
        update={"api_key": None} if "api_key" in type(one).model_fields else {}
    )
    saved = dumpd(one)
    assert load(saved, **allowed(type(one))) == without_key
    assert loads(dumps(one), **allowed(type(one))) == without_key
    assert load(json.loads(json.dumps(saved)), **allowed(type(one))).core == one.core


@EVERY
def test_an_object_built_of_its_own_fields_equals_it(one):
    fields = {name: getattr(one, name) for name in type(one).model_fields}
    again = type(one)(**fields)
    assert again == one
    assert again.backend is one.backend


def test_a_ready_backend_that_the_fields_do_not_make_is_refused():
    fields = {"model": "smollm2", "max_model_len": 64}
    with pytest.raises(errors.ConfigurationError, match="ready backend"):
        ChatVLLMUncertainty(backend=ScriptedBackend(["a"]), **fields)


def test_a_secret_is_not_saved():
    chat = ChatVLLMUncertainty(model="smollm2", api_key="s3cret", hf_token="s3cret")
    assert "s3cret" not in dumps(chat)
    found = load(dumpd(chat), secrets_map={"UQ_LLM_API_KEY": "given"}, **allowed(type(chat)))
    assert found.api_key.get_secret_value() == "given"


@pytest.mark.parametrize("kind", [ChatVLLMUncertainty, VLLMUncertaintyLLM])
def test_the_key_of_a_server_is_given_again(kind):
    key, header = {"api_key": "s3cret"}, {"headers": {"X-Team": "s3cret"}}
    one = kind(base_url="http://one", **key, **header)
    assert "s3cret" not in dumps(one) and "http://one" in dumps(one)
    found = load(dumpd(one), secrets_map={"UQ_LLM_API_KEY": "s3cret"}, **allowed(kind))
    assert found.backend == kind(base_url="http://one", **key).backend
    assert found.core.identity == one.core.identity


@pytest.mark.parametrize(
    "given",
    [
        {"backend": ScriptedBackend(["a"])},
        {"model": "smollm2", "uncertain_when": Custom(lambda result: True, "entropy > 2")},
        {"model": "smollm2", "uncertain_when": agreement(lambda text: text[:1]) < 0.5, "n": 2},
        {"model": "smollm2", "strategy": BestOfN(2, by="majority", answer=lambda text: text[:1])},
    ],
    ids=["backend", "function", "answer of a condition", "answer of a strategy"],
)
def test_what_cannot_be_saved_is_refused_when_it_is_loaded(given):
    saved = dumpd(ChatVLLMUncertainty(**given))
    with pytest.raises(NotImplementedError, match="serialization"):
        load(saved, **allowed(ChatVLLMUncertainty))


def test_a_chain_is_saved_with_its_model():
    chain = ChatPromptTemplate.from_template("Name {x}.") | OBJECTS[0].model_copy(
        update={"api_key": None}
    )
    kinds = [RunnableSequence, ChatPromptTemplate, ChatVLLMUncertainty]
    kinds += [type(one) for one in chain.first.messages] + [type(chain.first.messages[0].prompt)]
    assert load(dumpd(chain), **allowed(*kinds)) == chain


def test_what_is_saved_follows_a_change():
    chat = scripted("a")
    before = chat._serialized
    chat.temperature = 0.5
    assert chat._serialized["kwargs"]["temperature"] == 0.5 != before["kwargs"].get("temperature")
    assert copy.deepcopy(chat)._serialized == chat._serialized


def is_plain(value):
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return value is not None


@pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning")
@pytest.mark.parametrize(
    "given", [{"model": "smollm2", "max_model_len": 64}, {"base_url": "http://one"}]
)
def test_an_object_is_rebuilt_of_its_plain_attributes_as_uqlm_does(given):
    plain = {
        name: one for name, one in OPTIONS.items() if name in ("n", "top_p", "stop", "methods")
    }
    chat = ChatVLLMUncertainty(**given, temperature=0.5, **plain)
    left = {"config_specs", "lc_attributes", "lc_secrets", "model_config", "disable_streaming"}
    left.add("model_computed_fields")
    names = {name for name in dir(chat) if not name.startswith("_")} - left
    found = {name: getattr(chat, name) for name in names if not callable(getattr(chat, name))}
    found = {name: one for name, one in found.items() if is_plain(one)}
    assert {"model_name", "generator_type"} <= found.keys()
    assert ChatVLLMUncertainty(**found) == chat
