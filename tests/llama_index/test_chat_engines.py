"""LlamaIndex's chat engines with our class, on a backend that answers from a script."""

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.chat_engine import CondensePlusContextChatEngine, SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import TextNode

from tests.conftest import eventually
from tests.llama_index.scripted import prompts, scripted
from uq_llm_integrations.llama_index import UncertaintyEventHandler


def memory() -> ChatMemoryBuffer:
    return ChatMemoryBuffer.from_defaults(token_limit=1000, tokenizer_fn=str.split)


@pytest.fixture
def handler(registered) -> UncertaintyEventHandler:
    return registered(UncertaintyEventHandler())


async def test_turns_are_kept_without_their_scores(handler):
    llm = scripted(token_scores=True)
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory())
    assert str(engine.chat("Where?")) == "Paris."
    assert str(await engine.achat("Sure?")) == "Paris."
    assert prompts(llm)[-1] == "user: Where?\nassistant: Paris.\nuser: Sure?"
    assert [call.text for call in handler.calls] == ["Paris.", "Paris."]


async def test_a_streamed_turn_is_kept_too(handler):
    llm = scripted(logprobs=True)
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory())
    assert "".join(engine.stream_chat("Where?").response_gen) == "Paris."
    response = await engine.astream_chat("Sure?")
    assert "".join([token async for token in response.async_response_gen()]) == "Paris."
    await eventually(lambda: len(handler.calls) == 2)
    assert prompts(llm)[-1] == "user: Where?\nassistant: Paris.\nuser: Sure?"


def test_a_chat_engine_with_documents_condenses_questions_and_answers(handler):
    llm = scripted()
    index = VectorStoreIndex([TextNode(text="Oslo.")], embed_model=MockEmbedding(embed_dim=4))
    engine = CondensePlusContextChatEngine.from_defaults(
        index.as_retriever(), llm=llm, memory=memory()
    )
    engine.chat("Where?")
    assert str(engine.chat("Sure?")) == "Paris."
    answered, condensed, again = prompts(llm)
    assert "Oslo." in answered
    assert "user: Where?\nassistant: Paris." in condensed
    assert again.endswith("assistant: Paris.\nuser: Sure?")
    assert not any("uncertainty" in prompt for prompt in prompts(llm))
    assert len(handler.calls) == 3
