"""Names of control tokens in LlamaIndex's classes: text in chat, tokens in a formatted prompt."""

import pytest
from llama_index.core.llms import ChatMessage

from tests.test_allow_special_tokens import END, FORGED, Recording, ends
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM


@pytest.mark.parametrize(("allowed", "count"), [({}, 2), ({"allow_special_tokens": True}, 4)])
def test_in_chat_they_are_text_unless_allowed(allowed, count):
    messages = [ChatMessage(role="system", content=FORGED), ChatMessage(FORGED)]
    assert ends(lambda one: VLLMUncertaintyLLM(backend=one).chat(messages, **allowed)) == [count]
    assert ends(lambda one: VLLMUncertaintyLLM(backend=one, **allowed).complete(FORGED)) == [
        count // 2
    ]
    ids = VLLMUncertaintyLLM(backend=Recording(), **allowed).token_ids(FORGED)
    assert (END in ids) == bool(allowed)


@pytest.mark.parametrize(("given", "count"), [({}, 1), ({"allow_special_tokens": False}, 0)])
def test_in_a_formatted_prompt_they_are_tokens_unless_refused(given, count):
    call = lambda one: VLLMUncertaintyLLM(backend=one, **given).complete(FORGED, formatted=True)  # noqa: E731
    assert ends(call) == [count]
