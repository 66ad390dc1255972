"""How many tokens a conversation takes, by the tokenizer of the model and its chat template."""

import pytest
from transformers import AutoTokenizer

from tests.backends.test_codec import ADD, TemplateBackend
from uq_llm_integrations import (
    HuggingFaceBackend,
    InvalidRequestError,
    ScriptedBackend,
    UncertaintyModel,
)
from uq_llm_integrations.checkpoints import resolve_model

USER = {"role": "user", "content": "Wie geht's? 東京"}


@pytest.fixture(scope="module")
def model():
    """It reads the tokenizer, and no weights."""
    with UncertaintyModel(HuggingFaceBackend("smollm2")) as model:
        yield model


@pytest.fixture(scope="module")
def tokenizer():
    source = resolve_model("smollm2")
    source.prepare()
    return AutoTokenizer.from_pretrained(source.path)


def test_a_conversation_counts_as_what_the_template_makes_of_it(model, tokenizer):
    ids = tokenizer.apply_chat_template([USER], add_generation_prompt=True, return_dict=False)
    assert model.count_tokens([USER]) == len(ids)
    assert model.count_tokens(USER["content"]) == len(ids)


def test_tools_count(model):
    assert model.count_tokens([USER], tools=[ADD]) > model.count_tokens([USER]) + 20


def test_values_for_the_template_are_used():
    backend = TemplateBackend("{{ messages }}")
    model = UncertaintyModel(backend, chat_template_kwargs={"thinking": True})
    assert model.count_tokens("Hi") == len("user: Hi")


class Strict(TemplateBackend):
    """Has a template that wants questions and answers in turn."""

    async def encode_chat(self, conversation):
        roles = [one["role"] for one in conversation.messages]
        if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2):
            raise InvalidRequestError("roles must alternate")
        return await super().encode_chat(conversation)


def test_a_part_that_the_template_refuses_counts_by_its_turns():
    model = UncertaintyModel(Strict("{{ messages }}"))
    answered = [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Ho"}]
    assert model.count_tokens(answered) == 2 * len("user: Hi")


def test_no_tokens_are_counted_as_part_of_an_answer():
    backend = ScriptedBackend(["Paris"])
    UncertaintyModel(backend).count_tokens("Capital of France?")
    assert backend.requests == []
