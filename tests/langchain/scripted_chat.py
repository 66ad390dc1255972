"""A chat model that answers from a script, and what the tests read of its messages."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from uq_llm_integrations import ChatVLLMUncertainty, ScriptedBackend
from uq_llm_integrations.backends.scripted import Line


def scripted(*script: Line, **arguments: Any) -> ChatVLLMUncertainty:
    return ChatVLLMUncertainty(backend=ScriptedBackend(list(script) or ["Paris."]), **arguments)


def metadata_of(message: Any) -> dict[str, Any]:
    return message.response_metadata["uncertainty"]


def whole(chunks: Any) -> Any:
    chunks = list(chunks)
    return sum(chunks[1:], chunks[0])


def call(name: str, /, **arguments: Any) -> str:
    """A call in the Hermes format, which is read without a tokenizer."""
    said = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{said}\n</tool_call>"


class InOrder(Mapping[str, list[Line]]):
    """A script that gives its lines in their order, whatever the prompts are."""

    def __init__(self, *lines: Line) -> None:
        self._lines = iter(lines)

    def __getitem__(self, prompt: str) -> list[Line]:
        return [next(self._lines)]

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
