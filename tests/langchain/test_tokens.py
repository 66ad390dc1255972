"""Counting tokens as LangChain does, by the model's own tokenizer."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, trim_messages
from langchain_core.tools import tool

from uq_llm_integrations import (
    ChatHuggingFaceUncertainty,
    HuggingFaceUncertaintyLLM,
    InvalidRequestError,
)
from uq_llm_integrations.checkpoints import resolve_model

pytestmark = pytest.mark.engine

TEXT = "Naïve 東京 🙂 and a wordthatisnone"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture(scope="module")
def chat():
    """It reads the tokenizer, and no weights."""
    with ChatHuggingFaceUncertainty(model="smollm2") as chat:
        yield chat


@pytest.fixture(scope="module")
def llm(chat):
    return HuggingFaceUncertaintyLLM(backend=chat.backend)


@pytest.fixture(scope="module")
def tokenizer(chat):
    from transformers import AutoTokenizer

    chat.get_num_tokens("?")  # makes sure that the model is there
    return AutoTokenizer.from_pretrained(resolve_model("smollm2").path)


def test_a_text_has_the_tokens_of_the_models_tokenizer(chat, llm, tokenizer):
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert chat.get_token_ids(TEXT) == ids
    assert chat.get_num_tokens(TEXT) == len(ids)
    assert llm.get_token_ids(TEXT) == tokenizer.encode(TEXT)


def test_messages_are_counted_in_the_chat_template_with_the_tools(chat, tokenizer):
    messages = [SystemMessage("Be brief."), HumanMessage(TEXT)]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert chat.get_num_tokens_from_messages(messages) == len(ids)
    assert chat.get_num_tokens_from_messages(messages, tools=[add]) > len(ids) + 20
    assert chat.get_num_tokens_from_messages([]) == 0


def test_a_completion_gets_messages_as_one_text(llm, tokenizer):
    count = llm.get_num_tokens_from_messages([HumanMessage("Hi"), AIMessage("Ho")])
    assert count == len(tokenizer.encode("Human: Hi\nAI: Ho"))
    template = llm.model_copy(update={"chat_template": True})
    turn = [{"role": "user", "content": "Hi"}]
    ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    assert template.get_token_ids("Hi") == list(ids)
    with pytest.raises(InvalidRequestError, match="no tools"):
        llm.get_num_tokens_from_messages([HumanMessage("Hi")], tools=[add])


@pytest.mark.parametrize("strategy", ["first", "last"])
def test_messages_are_trimmed_to_what_fits(chat, strategy):
    turns = [kind(f"{TEXT} {i}") for i in range(5) for kind in (HumanMessage, AIMessage)]
    messages = [SystemMessage("Be brief."), *turns]
    keeps_system = {"include_system": True} if strategy == "last" else {}
    kept = trim_messages(
        messages, max_tokens=150, token_counter=chat, strategy=strategy, **keeps_system
    )
    assert 2 <= len(kept) < len(messages)
    assert isinstance(kept[0], SystemMessage)
    assert chat.get_num_tokens_from_messages(kept) <= 150


def test_a_counter_of_the_callers_own_is_used(chat):
    own = chat.model_copy(update={"custom_get_token_ids": lambda text: list(text.encode())})
    assert own.get_num_tokens("abc") == 3
    assert own.get_num_tokens_from_messages([HumanMessage("abc")]) == len("Human: abc")
