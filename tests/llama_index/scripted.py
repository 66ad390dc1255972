"""A model that answers from a script, and what the tests ask it and call with it."""

import json
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.tools import FunctionTool

from uq_llm_integrations import ScriptedBackend
from uq_llm_integrations.backends.scripted import Line
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM

PERPLEXITY = 0.1053605  # -log 0.9, the scripted probability


def scripted(script: Any = ("Paris.",), **arguments: Any) -> VLLMUncertaintyLLM:
    return VLLMUncertaintyLLM(backend=ScriptedBackend(script), **arguments)


class InOrder(ScriptedBackend):
    """Gives the script's answers in their order, whatever the prompts are."""

    def _next_line(self, prompt: str) -> Line:
        return super()._next_line("")


def in_order(*script: Line, **arguments: Any) -> VLLMUncertaintyLLM:
    return VLLMUncertaintyLLM(backend=InOrder(script), **arguments)


def asked(text: str = "?") -> list[ChatMessage]:
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
    """The tokens whose scores each response of a stream tells."""
    return [part.additional_kwargs["uncertainty"]["by_token"]["token"] for part in parts]
