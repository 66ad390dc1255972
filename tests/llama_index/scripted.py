"""A model that answers from a script, and what the tests send it and call with it."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.tools import FunctionTool

from uq_llm_integrations import Candidate, Request, ScriptedBackend
from uq_llm_integrations.backends.scripted import Line
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM

PERPLEXITY = 1 / 0.9  # of the scripted probability
LOGPROB = math.log(0.9)


def scripted(script: Any = ("Paris.",), **arguments: Any) -> VLLMUncertaintyLLM:
    return VLLMUncertaintyLLM(backend=ScriptedBackend(script), **arguments)


class InOrder(ScriptedBackend):
    """Gives the script's answers in their order, whatever the prompts are."""

    def _next_candidate(self, request: Request) -> Candidate:
        candidate = super()._next_candidate(replace(request, prompt_ids=()))
        return replace(candidate, prompt_ids=request.prompt_ids)


def in_order(*script: Line, **arguments: Any) -> VLLMUncertaintyLLM:
    return VLLMUncertaintyLLM(backend=InOrder(script), **arguments)


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
