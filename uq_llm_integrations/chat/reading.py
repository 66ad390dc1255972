"""Which reader a reply needs: the model's format of tool calls and of reasoning."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from uq_llm_integrations.backends.codec import knows_tools
from uq_llm_integrations.chat.reply import PlainReader, ReplyReader
from uq_llm_integrations.chat.tags import TagReader
from uq_llm_integrations.chat.vllm_reader import VLLMReader
from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidRequestError,
    MissingDependencyError,
)
from uq_llm_integrations.records import Conversation

CHOICES = ("auto", "none", "required")
_MARKS = {
    "<tool_call>": "hermes",
    "[TOOL_CALLS]": "mistral",
    "<|python_tag|>": "llama3_json",
    "<|tool_call|>": "granite",
}
"""What chat templates write calls with, and vLLM's parser of it."""


@dataclass(frozen=True)
class ReplyFormat:
    """How a model writes what is not plain content.

    Both are names of vLLM's parsers. Without `tool_parser` the chat template tells it where it can.
    """

    tool_parser: str | None = None
    reasoning_parser: str | None = None


def choice_of(choice: Any) -> str:
    """Return the frameworks' and OpenAI's ways to choose a tool as one of `CHOICES` or a name."""
    match choice:
        case None | False:
            return "auto"
        case True | "any":
            return "required"
        case str():
            return choice
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
    raise InvalidRequestError(
        f"tool_choice is {choice!r}; allowed are {', '.join(CHOICES)}, any, True, or a tool's name"
    )


def reader_of(
    tokenizer: Any,
    conversation: Conversation,
    tool_choice: str,
    form: ReplyFormat,
    prompt_ids: tuple[int, ...],
) -> ReplyReader:
    """Return a reader for one reply; `tool_choice` is one of `CHOICES` or a tool's name."""
    _check_choice(tool_choice, conversation)
    calls, thinks = bool(conversation.tools), form.reasoning_parser is not None
    if not calls and not thinks:
        return PlainReader()
    if tokenizer is None:
        return TagReader(calls=calls and tool_choice != "none", thinks=thinks)
    tool_parser = _tool_parser(tokenizer, form) if calls else None
    if find_spec("vllm") is None:
        return _without_vllm(tool_choice, tool_parser, thinks=thinks)
    return VLLMReader(
        tokenizer, conversation, tool_choice, tool_parser, form.reasoning_parser, prompt_ids
    )


def _without_vllm(tool_choice: str, tool_parser: str | None, *, thinks: bool) -> TagReader:
    if tool_parser not in {None, "hermes"} or tool_choice not in {"auto", "none"}:
        raise MissingDependencyError("vllm", "vllm")
    return TagReader(calls=tool_parser is not None and tool_choice == "auto", thinks=thinks)


def _tool_parser(tokenizer: Any, form: ReplyFormat) -> str:
    if form.tool_parser:
        return form.tool_parser
    template = str(getattr(tokenizer, "chat_template", None) or "")
    if not knows_tools(template):
        return "hermes"  # the format in which the model was told of the tools
    found = next((name for mark, name in _MARKS.items() if mark in template), None)
    if found is None:
        raise ConfigurationError(
            "the chat template does not tell how the model writes calls: give `tool_parser`, a "
            "name of vLLM's parsers (see vllm.tool_parsers)"
        )
    return found


def _check_choice(choice: str, conversation: Conversation) -> None:
    names = [str(one["function"]["name"]) for one in conversation.tools]
    if choice not in {*CHOICES, *names}:
        raise InvalidRequestError(
            f"tool_choice is {choice!r}; allowed are {', '.join([*CHOICES, *names])}"
        )
