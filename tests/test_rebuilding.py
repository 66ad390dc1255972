"""An object that is made of another one's fields is the same, on the same engine."""

import copy
import pickle

import pytest
from langchain_core.runnables import ConfigurableField
from llama_index.core.base.llms.types import ChatMessage

from uq_llm_integrations import (
    BestOfN,
    ConfigurationError,
    EarlyStop,
    MethodOptions,
    ScriptedBackend,
    langchain,
    llama_index,
)

MODEL = {"model": "org/name"}
MADE = {
    "VLLM": {**MODEL, "max_model_len": 64, "max_n": 4, "deadline": 9.0},
    "HuggingFace": {**MODEL, "dtype": "float32"},
    "Hybrid": {**MODEL, "mode": "resident", "huggingface": {"dtype": "float32"}},
    "VLLM, served": {
        **MODEL,
        "base_url": ["http://one:8000", "http://two:8000"],
        "api_key": "key",
        "headers": {"X-Team": "red"},
        "connect_timeout": 3.0,
        "deadline": 9.0,
    },
    "Hybrid, served": {**MODEL, "mode": "resident", "vllm": {"base_url": "http://one"}},
}
ROOMS = {
    "chat": lambda kind: getattr(langchain, f"Chat{kind.partition(',')[0]}Uncertainty"),
    "completion": lambda kind: getattr(langchain, f"{kind.partition(',')[0]}UncertaintyLLM"),
    "LlamaIndex": lambda kind: getattr(llama_index, f"{kind.partition(',')[0]}UncertaintyLLM"),
}
OPTIONS = {
    "methods": ["entropy"],
    "method_options": MethodOptions(samples=3),
    "strategy": BestOfN(2),
    "uncertain_when": "entropy > 2",
    "early_stop": EarlyStop(3.0),
    "temperature": 0.5,
    "top_p": 0.9,
    "stop": ["x"],
    "timeout": 9.0,
}
KINDS = pytest.mark.parametrize("kind", MADE)
CLASSES = pytest.mark.parametrize("room", ROOMS)


def fields_of(one):
    return {name: getattr(one, name) for name in type(one).model_fields}


@KINDS
@CLASSES
def test_an_object_of_the_fields_equals_the_original_and_shares_its_backend(room, kind):
    one = ROOMS[room](kind)(**MADE[kind], **OPTIONS)
    again = type(one)(**fields_of(one))
    assert again == one and again.backend is one.backend
    assert again.core.identity == one.core.identity
    changed = type(one)(**{**fields_of(one), "temperature": 0.7})
    assert (changed.temperature, changed.backend) == (0.7, one.backend)


@CLASSES
def test_one_on_a_ready_backend_does_so_too(room):
    one = ROOMS[room]("VLLM")(backend=ScriptedBackend(["Paris."]), **OPTIONS)
    again = type(one)(**fields_of(one))
    assert again == one and again.backend is one.backend


@KINDS
@CLASSES
def test_another_model_among_the_fields_is_another_backend(room, kind):
    one = ROOMS[room](kind)(**MADE[kind])
    other = type(one)(**{**fields_of(one), "model": "org/other"})
    assert other.model_name == "org/other" and one.model_name == "org/name"
    assert other.backend != one.backend


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@CLASSES
def test_the_fields_of_a_copy_make_an_object_too(room, copied):
    one = copied(ROOMS[room]("VLLM")(**MADE["VLLM"]))
    assert type(one)(**fields_of(one)) == one


@pytest.mark.parametrize(
    "more",
    [
        {"model": "x"},
        {"max_n": 3},
        {"deadline": 1.0},
        {"max_model_len": 9},
        {"base_url": "http://one"},
    ],
)
@CLASSES
def test_a_ready_backend_takes_nothing_that_describes_another_one(room, more):
    with pytest.raises(ConfigurationError, match="a ready backend takes no"):
        ROOMS[room]("VLLM")(backend=ScriptedBackend(["Paris."]), **more)


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("room", ["chat", "completion"])
def test_fields_are_chosen_at_run_time_where_a_model_is_given(room, kind):
    one = ROOMS[room](kind)(**MADE[kind])
    chosen = one.configurable_fields(
        temperature=ConfigurableField(id="heat"), model=ConfigurableField(id="name")
    )
    hot, _ = chosen.prepare({"configurable": {"heat": 0.9}})
    assert (hot.temperature, hot.backend) == (0.9, one.backend)
    other, _ = chosen.prepare({"configurable": {"name": "org/other"}})
    assert other.model_name == "org/other"


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("room", ["chat", "completion"])
def test_alternatives_are_chosen_at_run_time_where_a_model_is_given(room, kind):
    one = ROOMS[room](kind)(**MADE[kind])
    chosen = one.configurable_fields(
        temperature=ConfigurableField(id="heat")
    ).configurable_alternatives(
        ConfigurableField(id="which"),
        default_key="one",
        other=ROOMS[room]("VLLM")(model="org/other"),
    )
    found, _ = chosen.prepare({"configurable": {"which": "one", "heat": 0.9}})
    assert (found.temperature, found.model_name) == (0.9, "org/name")
    other, _ = chosen.prepare({"configurable": {"which": "other"}})
    assert other.model_name == "org/other"
    assert {spec.id for spec in chosen.config_specs} == {"which", "heat"}


def test_a_choice_reaches_the_answer():
    chat = langchain.ChatVLLMUncertainty(backend=ScriptedBackend(["Paris."]))
    chosen = chat.configurable_fields(
        strategy=ConfigurableField(id="strategy"), temperature=ConfigurableField(id="heat")
    )
    config = {"configurable": {"strategy": BestOfN(2), "heat": 0.9}}
    assert chosen.invoke("?", config).content == "Paris."
    assert [one.content for one in chosen.stream("?", config)] == ["Paris."]
    assert [one.n for one in chat.backend.requests] == [2, 2]


def test_llama_index_counts_with_the_tokens_of_the_model():
    llm = llama_index.VLLMUncertaintyLLM(backend=ScriptedBackend(["Paris."]))
    assert llm.token_ids("Hé") == list("Hé".encode())
    assert llm.chat([ChatMessage(role="user", content="?")]).message.content == "Paris."
