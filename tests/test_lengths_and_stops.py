"""How long an answer may be where nothing is said, and what a stop string is: at all entrances."""

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from uq_llm_integrations import (
    ChatVLLMUncertainty,
    HybridUncertaintyGenerator,
    InvalidRequestError,
    ScriptedBackend,
    Stepwise,
    UncertaintyModel,
    VLLMStepGenerator,
    VLLMUncertaintyLLM,
)
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM as LlamaIndexLLM

CONTEXT = ScriptedBackend.capabilities.context_length
LONG = "word " * CONTEXT
MESSAGES = [ChatMessage(role="user", content="?")]

Answer = Callable[..., str]
"""The text of an answer to '?' on a backend, with options at the call."""

CHAT: dict[str, Answer] = {
    "UncertaintyModel.generate": lambda b, **o: UncertaintyModel(b).generate("?", **o).text,
    "UncertaintyModel.chat": lambda b, **o: UncertaintyModel(b).chat("?", **o).text,
    "UncertaintyModel.stream": lambda b, **o: "".join(
        piece.part.content for piece in UncertaintyModel(b).stream("?", **o)
    ),
    "LangChain chat": lambda b, **o: ChatVLLMUncertainty(backend=b).invoke("?", **o).content,
    "LangChain chat, bound": lambda b, **o: (
        ChatVLLMUncertainty(backend=b).bind(**o).invoke("?").content
    ),
    "LangChain chat, stream": lambda b, **o: "".join(
        chunk.content for chunk in ChatVLLMUncertainty(backend=b).stream("?", **o)
    ),
    "LlamaIndex chat": lambda b, **o: LlamaIndexLLM(backend=b).chat(MESSAGES, **o).message.content,
    "LlamaIndex complete": lambda b, **o: LlamaIndexLLM(backend=b).complete("?", **o).text,
}
TEXT: dict[str, Answer] = {
    "LangChain completion": lambda b, **o: VLLMUncertaintyLLM(backend=b).invoke("?", **o),
    "LangChain completion, bound": lambda b, **o: (
        VLLMUncertaintyLLM(backend=b).bind(**o).invoke("?")
    ),
    "LangChain completion, batch": lambda b, **o: VLLMUncertaintyLLM(backend=b).batch(["?"], **o)[
        0
    ],
    "LangChain completion, stream": lambda b, **o: "".join(
        VLLMUncertaintyLLM(backend=b).stream("?", **o)
    ),
    "VLLMStepGenerator": lambda b, **o: VLLMStepGenerator(b, Stepwise(1)).generate("?", **o).text,
    "HybridUncertaintyGenerator": lambda b, **o: HybridUncertaintyGenerator(
        backend=b
    ).generate_with_uncertainty("?", 1, **o)[0]["text"],
}
EVERY = pytest.mark.parametrize("answer", [*CHAT.values(), *TEXT.values()], ids=[*CHAT, *TEXT])


@pytest.mark.parametrize("answer", CHAT.values(), ids=CHAT)
def test_an_answer_may_fill_the_context_where_nothing_is_said(answer: Answer) -> None:
    assert len(answer(ScriptedBackend([LONG]))) == CONTEXT - 1


@EVERY
def test_none_stands_for_all_that_the_prompt_leaves(answer: Answer) -> None:
    assert len(answer(ScriptedBackend([LONG]), max_tokens=None)) == CONTEXT - 1


@pytest.mark.parametrize("answer", TEXT.values(), ids=TEXT)
def test_what_continues_a_text_ends_after_256_tokens_unless_told_otherwise(answer: Answer) -> None:
    assert len(answer(ScriptedBackend([LONG]))) == 256


@EVERY
@pytest.mark.parametrize(
    ("stop", "strings"),
    [("END", ["END"]), (["END"], ["END"]), (("END", "never"), ["END", "never"])],
)
def test_a_string_is_one_stop_string(answer: Answer, stop: Any, strings: list[str]) -> None:
    backend = ScriptedBackend(["No E, N or D, END of it"])
    assert answer(backend, stop=stop).startswith("No E, N or D, ")
    assert backend.requests[0].sampling["stop"][: len(strings)] == strings


@EVERY
def test_what_is_no_stop_string_is_refused(answer: Answer) -> None:
    backend = ScriptedBackend(["Paris"])
    with pytest.raises(InvalidRequestError, match="stop is 3; it must be a string or a list"):
        answer(backend, stop=3)
    assert not backend.requests
