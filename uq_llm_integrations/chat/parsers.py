"""What reads a reply from a model's text, and which reader a turn needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Protocol

from uq_llm_integrations.backends.codec import knows_tools
from uq_llm_integrations.chat.reply import Reply, ReplyPart, ToolCall
from uq_llm_integrations.chat.tag_reader import TagReader, new_call_id
from uq_llm_integrations.chat.vllm_parsers import VLLMReader
from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidRequestError,
    MissingDependencyError,
    described,
)
from uq_llm_integrations.records import Candidate, Conversation

CHOICES = ("auto", "none", "required")

_MARKS = {
    "<tool_call>": "hermes",
    "[TOOL_CALLS]": "mistral",
    "<|python_tag|>": "llama3_json",
    "<|tool_call|>": "granite",
}
"""What chat templates write calls with, and vLLM's parser of it."""


class ReplyReader(Protocol):
    """Reads one reply. One that reads a stream keeps its state, so each reply has a reader."""

    @property
    def sampling(self) -> Mapping[str, Any]:
        """The sampling parameters with which the reply has to be generated."""

    def whole(self, text: str, token_ids: tuple[int, ...], *, is_cut: bool = False) -> Reply:
        """Read a finished reply; one that `is_cut` did not end of its own."""

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Read what a stream adds."""


class PlainReader:
    """Takes all text for content: without tools and without reasoning nothing is hidden."""

    sampling: Mapping[str, Any] = {}

    def whole(self, text: str, token_ids: tuple[int, ...], *, is_cut: bool = False) -> Reply:
        """Return all of it as content."""
        return Reply(text)

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Return all of it as content."""
        return ReplyPart(text)


class OneCallReader:
    """Reads a reply as another reader does, and leaves out all calls but the first."""

    def __init__(self, reader: ReplyReader) -> None:
        self._reader = reader

    @property
    def sampling(self) -> Mapping[str, Any]:
        """The sampling parameters with which the reply has to be generated."""
        return self._reader.sampling

    def whole(self, text: str, token_ids: tuple[int, ...], *, is_cut: bool = False) -> Reply:
        """Read a finished reply."""
        reply = self._reader.whole(text, token_ids, is_cut=is_cut)
        return replace(reply, tool_calls=reply.tool_calls[:1])

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Read what a stream adds."""
        part = self._reader.part(text, token_ids, is_last=is_last)
        return replace(part, calls=tuple(one for one in part.calls if one.index == 0))


def flag_of(name: str, value: object, *, default: bool) -> bool:
    """Return what a turn says of something that is or is not; the default where it says nothing."""
    if value is not None and not isinstance(value, bool):
        raise InvalidRequestError(f"{name} is {described(value)}; allowed are True and False")
    return default if value is None else value


def continued(conversation: Conversation, wanted: object) -> Conversation:
    """Return a conversation that `continues` where `continue_final_message` says so."""
    flag = flag_of("continue_final_message", wanted, default=conversation.continues)
    return replace(conversation, continues=flag)


def tool_choice_of(choice: object) -> str:
    """Return the frameworks' and OpenAI's ways to choose a tool as one of `CHOICES` or a name."""
    match choice:
        case None | False:
            return "auto"
        case True:
            return "required"
        case str():  # first: what is no text may not even be comparable with one
            return "required" if choice == "any" else choice
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
    raise InvalidRequestError(
        f"tool_choice is {described(choice)}; allowed are {', '.join(CHOICES)}, any, True, or a "
        "tool's name"
    )


def reply_reader(
    tokenizer: Any,
    conversation: Conversation,
    tool_choice: str,
    tool_parser: str | None,
    reasoning_parser: str | None,
    prompt_ids: tuple[int, ...],
    *,
    one_call: bool = False,
    schema: Mapping[str, Any] | None = None,
) -> ReplyReader:
    """Return a reader for one reply; `tool_choice` is one of `CHOICES` or a tool's name.

    Both parsers are vLLM's names; without `tool_parser` the chat template decides where it can.
    With `one_call`, no more than one is forced. Where the model may call a tool but need not, its
    reply follows the grammar `schema` otherwise, if there is one.
    """
    _check_choice(tool_choice, conversation)
    calls, thinks = bool(conversation.tools), reasoning_parser is not None
    is_due = calls and tool_choice not in {"auto", "none"}
    if not calls and not thinks:
        return PlainReader()
    if tokenizer is None:
        return TagReader(calls=calls and tool_choice != "none", thinks=thinks, is_due=is_due)
    parser = (tool_parser or _parser_of(tokenizer)) if calls else None
    if find_spec("vllm") is None:
        if parser not in {None, "hermes"} or is_due:
            raise MissingDependencyError("vllm", "vllm")
        return TagReader(calls=parser is not None and tool_choice == "auto", thinks=thinks)
    return VLLMReader(
        tokenizer,
        conversation,
        tool_choice,
        parser,
        reasoning_parser,
        prompt_ids,
        one_call=one_call,
        schema=schema if calls and tool_choice == "auto" else None,
    )


def _parser_of(tokenizer: Any) -> str:
    template = str(getattr(tokenizer, "chat_template", None) or "")
    if not knows_tools(template):
        return "hermes"  # the format in which the tools were described to the model
    found = next((name for mark, name in _MARKS.items() if mark in template), None)
    if found is None:
        raise ConfigurationError(
            "the chat template does not show how the model writes calls: give `tool_parser`, a "
            "name of vLLM's parsers (see vllm.tool_parsers)"
        )
    return found


def _check_choice(choice: str, conversation: Conversation) -> None:
    names = [str(one["function"]["name"]) for one in conversation.tools]
    if choice not in {*CHOICES, *names}:
        raise InvalidRequestError(
            f"tool_choice is {described(choice)}; allowed are {', '.join([*CHOICES, *names])}"
        )


def is_cut(candidate: Candidate) -> bool:
    """Whether a reply ended before the model ended it."""
    return candidate.finish_reason != "stop" or isinstance(candidate.stop_reason, str)


def cut_call(reply: Reply, candidate: Candidate, choice: str) -> Reply:
    """Return a reply that had to be a call, and ended before it could be read as one, as that.

    `choice` is "required" or the name of the tool.
    """
    if not is_cut(candidate) or reply.tool_calls or (reply.reasoning and not reply.content):
        return reply
    name, said = "" if choice == "required" else choice, reply.content or candidate.text
    return Reply("", reply.reasoning, (ToolCall(name, said, new_call_id(), is_cut=True),))
