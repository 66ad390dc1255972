"""What the content blocks of any framework or provider say, as messages for chat templates.

A block is what a message of OpenAI's, Anthropic's, Google's or Amazon's API, of LangChain or of
LlamaIndex consists of. Text, reasoning, calls and their results are taken over; what only its own
provider understands (its tools, citations, marks for caches) is left out; pictures, sound and files
are refused, since the model reads text.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uq_llm_integrations.errors import InvalidRequestError, described
from uq_llm_integrations.records import JsonObject

Message = Mapping[str, Any]
Block = Mapping[str, Any]

_SEEN_OR_HEARD = {"image", "audio", "video", "media", "inline_data"}
_FILES = {"file", "document", "pdf", "file_data", "container_upload", "text-plain"}

_REASONING = {"reasoning", "thinking", "reasoning_content"}
_CALLS = {"tool_call", "tool_use", "function_call", "custom_tool_call"}
_RESULTS = {"tool_result", "function_call_output", "function_response", "custom_tool_call_output"}
_NOT_SAID = {"tool_call_chunk", "invalid_tool_call", "citation", "redacted_thinking"}


def plain_messages(messages: Sequence[Message], separator: str = "") -> tuple[Message, ...]:
    """Return messages whose content is text, with reasoning and calls where templates look.

    Results of calls within another message become messages of their own. `separator` stands between
    the texts of blocks. Raises InvalidRequestError for content that is no text, by its type, and
    for calls that are none.
    """
    try:
        return tuple(one for message in messages for one in _plain(message, separator))
    except RecursionError:
        raise InvalidRequestError("a message's blocks stand too deep within each other") from None


def text_of(message: Message, separator: str = "") -> str:
    """Return the text of a message, whose content may be a list of blocks or None."""
    return separator.join(_said(message.get("content")).texts)


@dataclass
class _Said:
    """What the blocks of a message say."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[JsonObject] = field(default_factory=list)
    results: list[JsonObject] = field(default_factory=list)


def _plain(message: Message, separator: str) -> list[Message]:
    content, role = message.get("content"), message.get("role")
    role = "tool" if role == "function" else role
    calls = _given_calls(message)
    if isinstance(content, str) and content:
        return [{**message, "role": role}]
    said = _said(content)
    if role == "tool":  # its own result, in a provider's wrapping
        said.texts += [one["content"] for one in said.results]
        said.results.clear()
    text = separator.join(said.texts) or str(message.get("refusal") or "")
    plain = {**message, "role": role, "content": text} | _beside(message, calls, said)
    return _ordered(plain, said.results)


def _ordered(plain: Message, results: Sequence[Message]) -> list[Message]:
    """Return results behind the calls that they are of, and before what a user says to them."""
    if plain["role"] == "assistant":
        return [plain, *results]
    return [*results, plain] if plain["content"] or not results else [*results]


def _given_calls(message: Message) -> list[Mapping[str, Any]]:
    calls = message.get("tool_calls") or ()
    if not isinstance(calls, list | tuple) or not all(isinstance(one, Mapping) for one in calls):
        raise InvalidRequestError(
            f"the tool_calls of a message are {described(calls)}; allowed is a list of dicts"
        )
    return list(calls)


def _beside(message: Message, known: list[Mapping[str, Any]], said: _Said) -> JsonObject:
    """Return the reasoning and the calls that only the blocks have."""
    ids = [one.get("id") for one in known]
    new = [one for one in said.calls if one["id"] not in ids and (one["id"] or not known)]
    found: JsonObject = {"tool_calls": [*known, *new]} if new else {}
    if said.thoughts and not message.get("reasoning_content"):
        found["reasoning_content"] = "".join(said.thoughts)
    return found


def _said(content: object) -> _Said:
    """Return what content says: a text, blocks, or nothing."""
    said = _Said()
    if isinstance(content, Mapping):
        content = [content]
    if isinstance(content, str):
        content = [content] if content else []
    if not isinstance(content, list | tuple | None):
        raise InvalidRequestError(
            f"a message's content is {described(content)}; allowed are a text, a list of blocks "
            "and None"
        )
    for block in content or ():
        if isinstance(block, str):
            said.texts.append(block)
        elif isinstance(block, Mapping):
            _add(_typed(block), said)
        else:
            raise InvalidRequestError(
                f"a content block is {described(block)}; allowed are texts and dicts"
            )
    return said


def _typed(block: Block) -> Block:
    """Return a block with its type, which Google's and Amazon's have as the name of their key."""
    if isinstance(block.get("type"), str) or not block:
        return block
    name = next((one for one in block if _snake(one) not in _ASIDE), next(iter(block)))
    inner = block[name]
    fields = inner if isinstance(inner, Mapping) else {}
    return {**block, **fields, _snake(name): inner, "type": _snake(name)}


_ASIDE = {"thought", "thought_signature", "index", "id"}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _add(block: Block, said: _Said) -> None:
    kind = str(block.get("type"))
    if kind in _REASONING or block.get("thought") is True:
        said.thoughts += _reasoning(block)
    elif kind in _CALLS:
        said.calls += _call(block)
    elif kind in _RESULTS:
        said.results.append(_result(block))
    elif kind == "non_standard":
        if isinstance(inner := block.get("value"), Mapping):
            _add(_typed(inner), said)
    elif kind not in _NOT_SAID:
        texts = _texts(block)
        if not texts and _medium(kind) in _SEEN_OR_HEARD | _FILES:
            raise InvalidRequestError(
                f"content of type {described(kind)} is not served: this model reads text; allowed "
                "is text"
            )
        said.texts += texts


def _medium(kind: str) -> str:
    return re.sub(r"^input_|^output_|_url$|_file$|_block$", "", kind)


def _texts(block: Block) -> list[str]:
    """Return the texts of a block that is neither reasoning, a call nor a result."""
    match block:
        case {"type": "refusal", "refusal": str(text)}:
            return [text] if text else []
        case {"type": "json", "json": value}:
            return [_json(value)]
        case {"type": "guard_content", "guard_content": dict(inner)}:
            return _texts({"type": "text", "text": inner.get("text")})
        case {"type": "text", "text": {"text": str(text)}}:
            return [text]
        case {"type": "document", "source": {"type": "text", "data": str(text)}}:
            return [text]
        case {"type": "document", "source": {"content": str() | list() as inner}}:
            return _said(inner).texts
        case {"type": "search_result" | "citable" | "citations_content", "content": list(inner)}:
            return _said(inner).texts
        case {"type": "text-plain", "base64": str(data)}:
            return _decoded(data)
        case {"type": kind, "text": str(text)} if _medium(str(kind)) not in _SEEN_OR_HEARD:
            return [text]
    return []


def _decoded(data: str) -> list[str]:
    try:
        return [b64decode(data).decode()]
    except ValueError:
        return []


def _reasoning(block: Block) -> list[str]:
    """Return the texts of a block of reasoning, whatever its provider calls them."""
    names = ("reasoning", "thinking", "text", "reasoning_content", "reasoning_text")
    for name in (*names, "reasoningText", "content", "summary"):
        inner = block.get(name)
        if isinstance(inner, str) and inner:
            return [inner]
        if isinstance(inner, Mapping):
            return _reasoning(inner)
        if isinstance(inner, list) and inner:
            return [text for one in inner if isinstance(one, Mapping) for text in _reasoning(one)]
    return []


def _call(block: Block) -> list[JsonObject]:
    """Return a call in the shape of OpenAI's API; nothing for one without a name."""
    name = block.get("name")
    if not isinstance(name, str) or not name:
        return []
    given = (block.get(key) for key in ("args", "input", "arguments"))
    arguments: object = next((one for one in given if one is not None), {})
    text = arguments if isinstance(arguments, str) else _json(arguments)
    function = {"name": name, "arguments": text}
    return [{"id": _id(block), "type": "function", "function": function}]


def _result(block: Block) -> JsonObject:
    """Return the result of a call as a message."""
    given = (block.get(key) for key in ("content", "output", "response"))
    content = next((one for one in given if one is not None), "")
    is_blocks = isinstance(content, str | list | tuple)
    text = "\n".join(_said(content).texts) if is_blocks else _json(content)
    return {"role": "tool", "tool_call_id": _id(block), "content": text}


def _id(block: Block) -> str:
    names = ("call_id", "tool_use_id", "toolUseId", "tool_call_id", "id")
    return str(next((block[name] for name in names if block.get(name)), ""))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
