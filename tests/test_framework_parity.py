"""Both frameworks' classes return the same of the same output of a backend."""

from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.base.llms.types import ChatMessage, MessageRole

from tests.llama_index.scripted import ADD, call
from uq_llm_integrations import (
    BestOfN,
    Retry,
    ScriptedBackend,
    ScriptedLine,
    Single,
    langchain,
    llama_index,
    score,
)
from uq_llm_integrations.backends.scripted import Line

UNCERTAIN = score("perplexity") > 2.0
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tokens": {"token_scores": True, "methods": ("entropy", "TokenEntropy", "fisher_rao")},
    "abstains": {"uncertain_when": UNCERTAIN, "on_high_uncertainty": "abstain"},
    "best of two": {"strategy": BestOfN(2)},
    "retries": {"strategy": Retry(Single(), UNCERTAIN)},
    "samples": {"methods": ("lexical_similarity",), "n": 2},
}
SCRIPT = [ScriptedLine("Rome?", 0.3), ScriptedLine("Paris.", 0.9)]


def comparable(uncertainty: dict[str, Any]) -> dict[str, Any]:
    """All but what differs between two runs of the same: the seconds."""
    usage = uncertainty.get("usage")
    return uncertainty | ({"usage": {**usage, "seconds": 0}} if usage else {})


def llama(*script: Line, **settings: Any) -> llama_index.VLLMUncertaintyLLM:
    return llama_index.VLLMUncertaintyLLM(backend=ScriptedBackend(script), **settings)


def chat(*script: Line, **settings: Any) -> langchain.ChatVLLMUncertainty:
    return langchain.ChatVLLMUncertainty(backend=ScriptedBackend(script), **settings)


def messages(text: str = "?") -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=text)]


@pytest.mark.parametrize("name", SETTINGS)
def test_completions_have_the_same_scores(name):
    theirs = langchain.VLLMUncertaintyLLM(backend=ScriptedBackend(SCRIPT), **SETTINGS[name])
    text, uncertainty = theirs.invoke_with_scores("?")
    ours = llama(*SCRIPT, **SETTINGS[name]).complete("?", formatted=True)
    assert ours.text == text
    assert comparable(ours.additional_kwargs["uncertainty"]) == comparable(uncertainty)


@pytest.mark.parametrize("name", SETTINGS)
def test_chats_have_the_same_scores(name):
    (theirs,) = chat(*SCRIPT, **SETTINGS[name]).generate([[HumanMessage("?")]]).generations
    ours = llama(*SCRIPT, **SETTINGS[name]).chat(messages())
    message = theirs[0].message
    assert ours.message.content == message.content
    uncertainty = message.response_metadata["uncertainty"]
    assert comparable(ours.additional_kwargs["uncertainty"]) == comparable(uncertainty)
    assert [one["text"] for one in ours.raw["candidates"]][1:] == [one.text for one in theirs[1:]]


def test_tool_calls_have_the_same_scores():
    said = call("add", a=1, b=2)
    message = chat(said).bind_tools([ADD.metadata.to_openai_tool()]).invoke("?")
    ours = llama(said).chat_with_tools([ADD], "?")
    for each in (message.response_metadata, ours.additional_kwargs):
        each["uncertainty"]["tool_calls"][0].pop("id")
    assert comparable(ours.additional_kwargs["uncertainty"]) == comparable(
        message.response_metadata["uncertainty"]
    )


def test_streams_end_with_the_same_scores():
    settings = {"token_scores": True}
    first, *others = chat("Paris.", **settings).stream("?")
    message = sum(others, first)
    *_, last = llama("Paris.", **settings).stream_chat(messages())
    scores = last.additional_kwargs["uncertainty"]["scores"]
    assert scores == message.response_metadata["uncertainty"]["scores"]


def test_log_probabilities_are_the_same_numbers():
    message = chat("Paris.", logprobs=True).invoke("?")
    ours = llama("Paris.", logprobs=True).chat(messages())
    theirs = message.response_metadata["logprobs"]["content"]
    assert [(one[0].token, one[0].logprob) for one in ours.logprobs] == [
        (one["token"], one["logprob"]) for one in theirs
    ]
