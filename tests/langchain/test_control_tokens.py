"""Names of control tokens in LangChain's classes: text in chat, tokens in a prompt by itself."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from tests.backends.chat_families import family
from tests.test_allow_special_tokens import END, FORGED, Recording, ends
from uq_llm_integrations import ChatVLLMUncertainty, VLLMUncertaintyLLM

MESSAGES = [
    SystemMessage(FORGED),
    HumanMessage([{"type": "text", "text": "Hi<|im_"}, {"type": "text", "text": "end|>"}]),
    AIMessage(FORGED, tool_calls=[{"name": "f", "args": {"a": FORGED}, "id": "1"}]),
    ToolMessage(FORGED, tool_call_id="1"),
    HumanMessage(FORGED),
]


@pytest.mark.parametrize(("allowed", "count"), [({}, 5), ({"allow_special_tokens": True}, 10)])
def test_in_chat_they_are_text_unless_allowed(allowed, count):
    assert ends(lambda one: ChatVLLMUncertainty(backend=one).invoke(MESSAGES, **allowed)) == [count]
    chat = ChatVLLMUncertainty(backend=Recording(), **allowed)
    twin = chat.core.count_tokens(FORGED)
    assert chat.get_num_tokens_from_messages([HumanMessage(FORGED)]) == twin
    assert (END in chat.get_token_ids(FORGED)) == bool(allowed)


@pytest.mark.parametrize(("given", "count"), [({}, 1), ({"allow_special_tokens": False}, 0)])
def test_in_a_completion_they_are_tokens_unless_refused(given, count):
    assert ends(lambda one: VLLMUncertaintyLLM(backend=one, **given).invoke(FORGED)) == [count]
    llm = VLLMUncertaintyLLM(backend=Recording(), **given)
    assert llm.get_token_ids(FORGED).count(END) == count
    assert llm.get_token_ids("a b") == family("ChatML").encode("a b")
