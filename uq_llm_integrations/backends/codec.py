"""From texts and conversations to tokens, the same for every backend with a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError
from uq_llm_integrations.records import Conversation

Message = Mapping[str, Any]

TOOLS = """You may call functions. Their signatures are in <tools></tools>:
<tools>
{tools}
</tools>
To call one, answer with its name and its arguments as JSON in <tool_call></tool_call>:
<tool_call>
{{"name": <name>, "arguments": <arguments>}}
</tool_call>"""
"""What tells of tools where the chat template does not: the Hermes format."""


def encoded_prompt(tokenizer: Any, text: str, *, chat: bool, model: str) -> tuple[int, ...]:
    """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template."""
    if chat:
        turn = Conversation(({"role": "user", "content": text},))
        return encoded_chat(tokenizer, turn, model=model)
    return tuple(tokenizer.encode(text)) if text else ()


def encoded_chat(tokenizer: Any, conversation: Conversation, *, model: str) -> tuple[int, ...]:
    """Return the token ids of a conversation up to where the model's next turn begins."""
    template = chat_template(tokenizer, model)
    messages, tools = conversation.messages, conversation.tools
    if not messages:
        raise InvalidRequestError("there are no messages; a conversation needs at least one")
    if not knows_tools(template):
        messages, tools = told_of_tools(messages, tools), ()
    ready = [_for_template(one) for one in messages]
    try:
        ids = tokenizer.apply_chat_template(
            ready,
            tools=[dict(one) for one in tools] or None,
            add_generation_prompt=True,
            return_dict=False,
            **conversation.template,
        )
    except Exception as error:  # templates raise what they like where turns are not as they want
        raise InvalidRequestError(f"{model}'s chat template refuses it: {error}") from error
    return tuple(ids)


def chat_template(tokenizer: Any, model: str) -> str:
    """Return the template's source; raise ConfigurationError where there is none."""
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise ConfigurationError(f"the tokenizer of {model} has no chat template")
    return json.dumps(template) if isinstance(template, dict) else str(template)


def knows_tools(template: str) -> bool:
    """Return whether a chat template has a place for tools."""
    return "tools" in template


def told_of_tools(messages: Sequence[Message], tools: Sequence[Message]) -> tuple[Message, ...]:
    """Return messages that tell of tools and of calls in words, for a template that cannot."""
    told = [_in_words(one) for one in messages]
    if tools:
        described = TOOLS.format(tools="\n".join(json.dumps(one["function"]) for one in tools))
        if told[0]["role"] == "system":
            first = f"{text_of(told[0])}\n\n{described}"
            told[0] = {"role": "system", "content": first}
        else:
            told.insert(0, {"role": "system", "content": described})
    return tuple(told)


def text_of(message: Message) -> str:
    """Return the text of a message, whose content may be a list of blocks or None."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    blocks = [one if isinstance(one, dict) else {"type": "text", "text": one} for one in content]
    other = sorted({str(one.get("type")) for one in blocks} - {"text"})
    if other:
        raise InvalidRequestError(f"content of type {other} is not served; allowed is text")
    return "".join(one["text"] for one in blocks)


def _in_words(message: Message) -> Message:
    calls = "\n".join(
        f"<tool_call>\n{json.dumps(_call(one['function']))}\n</tool_call>"
        for one in message.get("tool_calls") or ()
    )
    content = text_of(message)
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    return {"role": message["role"], "content": "\n".join(p for p in (content, calls) if p)}


def _for_template(message: Message) -> dict[str, Any]:
    """Return a message as templates want it: content is text, arguments are objects."""
    ready = {**message, "content": text_of(message)}
    if message.get("tool_calls"):
        ready["tool_calls"] = [
            {**one, "function": _call(one["function"])} for one in message["tool_calls"]
        ]
    return ready


def _call(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function["arguments"]
    parsed = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    return {"name": function["name"], "arguments": parsed}
