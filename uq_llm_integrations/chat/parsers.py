"""What reads a reply from a model's text, and which reader a turn needs."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Protocol

from uq_llm_integrations.backends.codec import knows_tools
from uq_llm_integrations.chat.reply import CallPart, Reply, ReplyPart, ToolCall
from uq_llm_integrations.chat.vllm_parsers import VLLMReader
from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidRequestError,
    MissingDependencyError,
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

    def whole(self, text: str, token_ids: tuple[int, ...]) -> Reply:
        """Read a finished reply."""

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Read what a stream adds."""


class PlainReader:
    """Takes all text for content: without tools and without reasoning nothing is hidden."""

    sampling: Mapping[str, Any] = {}

    def whole(self, text: str, token_ids: tuple[int, ...]) -> Reply:
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

    def whole(self, text: str, token_ids: tuple[int, ...]) -> Reply:
        """Read a finished reply."""
        reply = self._reader.whole(text, token_ids)
        return replace(reply, tool_calls=reply.tool_calls[:1])

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Read what a stream adds."""
        part = self._reader.part(text, token_ids, is_last=is_last)
        return replace(part, calls=tuple(one for one in part.calls if one.index == 0))


def flag_of(name: str, value: object, *, default: bool) -> bool:
    """Return what a turn says of something that is or is not; the default where it says nothing."""
    if value is not None and not isinstance(value, bool):
        raise InvalidRequestError(f"{name} is {value!r}; allowed are True and False")
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
        case True | "any":
            return "required"
        case str():
            return choice
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
    raise InvalidRequestError(
        f"tool_choice is {choice!r}; allowed are {', '.join(CHOICES)}, any, True, or a tool's name"
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
    if not calls and not thinks:
        return PlainReader()
    if tokenizer is None:
        return TagReader(calls=calls and tool_choice != "none", thinks=thinks)
    parser = (tool_parser or _parser_of(tokenizer)) if calls else None
    if find_spec("vllm") is None:
        if parser not in {None, "hermes"} or tool_choice not in {"auto", "none"}:
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
            f"tool_choice is {choice!r}; allowed are {', '.join([*CHOICES, *names])}"
        )


def new_call_id() -> str:
    """Return an id for a call."""
    return f"call-{uuid.uuid4().hex[:16]}"


def cut_call(reply: Reply, candidate: Candidate, choice: str) -> Reply:
    """Return a reply that had to be a call, and ended before it could be read as one, as that.

    `choice` is "required" or the name of the tool.
    """
    ended = candidate.finish_reason == "stop" and not isinstance(candidate.stop_reason, str)
    if ended or reply.tool_calls or (reply.reasoning and not reply.content):
        return reply
    name, said = "" if choice == "required" else choice, reply.content or candidate.text
    return Reply("", reply.reasoning, (ToolCall(name, said, new_call_id(), is_cut=True),))


_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_BEGUN = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"]+)"(?:\s*,\s*"arguments"\s*:\s*(.*))?', re.DOTALL)
_END = "</tool_call>"
_THOUGHT = re.compile(r"^\s*(?:<think>)?(.*?)</think>\s*", re.DOTALL)
_TAGS = ("<tool_call>", "</think>", "<think>")


class TagReader:
    """Reads the Hermes format: JSON calls in `<tool_call>`, reasoning before `</think>`.

    Reasoning may begin in the prompt, so what does not begin with `<think>` is shown only once it
    is known what it is.
    """

    sampling: Mapping[str, Any] = {}

    def __init__(self, *, calls: bool, thinks: bool) -> None:
        self._calls, self._thinks = calls, thinks
        self._seen = ""
        self._shown = ReplyPart()

    def whole(self, text: str, token_ids: tuple[int, ...] = ()) -> Reply:
        """Read a finished reply; what names no tool is content."""
        reasoning, content = self._thought(text) if self._thinks else (None, text)
        calls: list[ToolCall] = []
        if self._calls:
            content = _CALL.sub(lambda found: _taken(found, calls), content)
        return Reply(content.strip() if calls else content, reasoning, tuple(calls))

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Show what no tag can take back any more; calls come when they are whole."""
        self._seen += text
        if is_last:
            return self._added(self.whole(self._seen), is_last=True)
        seen = self._seen.split("<tool_call>")[0] if self._calls else self._seen
        if self._thinks and "</think>" not in seen and not _is_opened(seen):
            return ReplyPart()
        reasoning, content = self._thought(seen) if self._thinks else (None, seen)
        return self._added(Reply(_settled(content), _settled(reasoning or "")), is_last=False)

    def _thought(self, text: str) -> tuple[str | None, str]:
        if found := _THOUGHT.match(text):
            return found[1].strip("\n"), text[found.end() :]
        if _is_opened(text):  # cut off within
            return text.lstrip().removeprefix("<think>").strip("\n"), ""
        return None, text

    def _added(self, reply: Reply, *, is_last: bool) -> ReplyPart:
        shown, reasoning = self._shown, reply.reasoning or ""
        calls = tuple(
            CallPart(i, one.arguments, one.name, one.id) for i, one in enumerate(reply.tool_calls)
        )
        self._shown = ReplyPart(reply.content, reasoning)
        return ReplyPart(
            reply.content[len(shown.content) :],
            reasoning[len(shown.reasoning) :],
            calls if is_last else (),
        )


def _taken(found: re.Match[str], calls: list[ToolCall]) -> str:
    call = _call(found[1]) or _begun_call(found[1], is_closed=found[0].endswith(_END))
    if call is None:
        return found[0]
    calls.append(call)
    return ""


def _call(text: str) -> ToolCall | None:
    try:
        call = json.loads(text)
        arguments = json.dumps(call.get("arguments", {}), ensure_ascii=False)
        return ToolCall(str(call["name"]), arguments, new_call_id())
    except (ValueError, KeyError, AttributeError, RecursionError):
        return None


def _begun_call(text: str, *, is_closed: bool) -> ToolCall | None:
    """Return a call that is cut or damaged, None where no tool is named."""
    text = _without_begun_end(text)
    if call := _call(text):
        return call
    found = _BEGUN.match(text)
    if found is None:
        return None
    arguments = (found[2] or "").rstrip()
    if is_closed:  # the last brace is not theirs
        arguments = arguments.removesuffix("}").rstrip()
    return ToolCall(found[1], arguments, new_call_id(), is_cut=True)


def _without_begun_end(text: str) -> str:
    sizes = (n for n in range(len(_END) - 1, 0, -1) if text.endswith(_END[:n]))
    return text[: len(text) - next(sizes, 0)].rstrip()


def _is_opened(text: str) -> bool:
    return text.lstrip().startswith("<think>")


def _settled(text: str) -> str:
    """Return the text without an end that may be the beginning of a tag, or white space before."""
    start = text.rfind("<")
    is_open = start >= 0 and any(tag.startswith(text[start:]) for tag in _TAGS)
    return (text[:start] if is_open else text).rstrip()
