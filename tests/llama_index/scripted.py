"""A model that answers from a script, and what the tests send it and call with it."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.tools import FunctionTool

from uq_llm_integrations import ScriptedBackend
from uq_llm_integrations.backends.scripted import Line
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM

PERPLEXITY = 1 / 0.9  # of the scripted probability
LOGPROB = math.log(0.9)


def scripted(script: Any = ("Paris.",), **arguments: Any) -> VLLMUncertaintyLLM:
    return VLLMUncertaintyLLM(backend=ScriptedBackend(script), **arguments)


class InOrder(Mapping[str, Sequence[Line]]):
    """A script that gives its lines in their order, whatever the prompts are."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = cycle(lines)

    def __getitem__(self, prompt: str) -> Sequence[Line]:
        return [next(self._lines)]

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def in_order(*script: Line, **arguments: Any) -> VLLMUncertaintyLLM:
    return scripted(InOrder(script), **arguments)


def question(text: str = "?") -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=text)]


def prompts(llm: VLLMUncertaintyLLM) -> list[str]:
    """All prompts that reached the backend."""
    return [bytes(request.prompt_ids).decode() for request in llm.backend.requests]


def call(name: str, /, **arguments: Any) -> str:
    """A call in the Hermes format, which is read without a tokenizer."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(add)


def tokens_of(parts: Sequence[Any]) -> list[list[str]]:
    """The tokens whose scores each response of a stream holds."""
    return [part.additional_kwargs["uncertainty"]["by_token"]["token"] for part in parts]
