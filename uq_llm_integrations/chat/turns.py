"""From a question or messages, and what is said beside them, to a turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from uq_llm_integrations.backends.content_blocks import Message
from uq_llm_integrations.backends.sampling_values import stop_strings
from uq_llm_integrations.chat.parsers import continued, flag_of, tool_choice_of
from uq_llm_integrations.chat.reply import Turn
from uq_llm_integrations.chat.tool_specs import tool_specs
from uq_llm_integrations.errors import InvalidRequestError, described
from uq_llm_integrations.records import Conversation, JsonObject

Messages = str | Conversation | Sequence[Message]
"""A user's question, or messages in the shape of OpenAI's API."""


def turn_of(messages: Messages, options: JsonObject) -> tuple[Turn, JsonObject]:
    """Return the turn, and the options that are not of the turn."""
    rest = dict(options)
    tools, stop = rest.pop("tools", None), stop_strings(rest.pop("stop", None))
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if isinstance(messages, Conversation):
        _checked(messages.messages)
        _check_template(messages.template)
        tool_specs(messages.tools)
    else:
        messages = Conversation(_checked(messages), tool_specs(tools))
    continues = rest.pop("continue_final_message", None)
    parallel = rest.pop("parallel_tool_calls", None)
    turn = Turn(
        continued(messages, continues),
        stop,
        tool_choice_of(rest.pop("tool_choice", None)),
        rest.pop("schema", None),
        parallel_tool_calls=flag_of("parallel_tool_calls", parallel, default=True),
    )
    return turn, rest


def _check_template(template: object) -> None:
    if not isinstance(template, Mapping) or not all(isinstance(one, str) for one in template):
        raise InvalidRequestError(
            f"the template of a conversation is {described(template)}; it maps names to values"
        )


def _checked(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return messages as a tuple; raise InvalidRequestError where they are none."""
    checked = tuple(messages) if isinstance(messages, Sequence) else ()
    if not checked:
        raise InvalidRequestError(
            f"the messages are {described(messages)}; give a text or a list of them"
        )
    for one in checked:
        if not isinstance(one, Mapping) or not {"role", "content"} <= one.keys():
            raise InvalidRequestError(
                f"{described(one)} is no message with a 'role' and a 'content'"
            )
        if not isinstance(one["role"], str):
            raise InvalidRequestError(
                f"the role of a message is {described(one['role'])}; it must be a text"
            )
    return checked
