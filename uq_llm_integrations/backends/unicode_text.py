"""Texts that are valid Unicode: others are refused by name, before they come to any tokenizer."""

from collections.abc import Mapping

from uq_llm_integrations.errors import InvalidRequestError, described
from uq_llm_integrations.records import Conversation


def checked_text(text: object, where: str) -> str:
    """Return a text; raise InvalidRequestError where it is none, or cannot be encoded."""
    if not isinstance(text, str):
        raise InvalidRequestError(f"{where} is {described(text)}, not a text")
    check_unicode(text, where)
    return text


def check_unicode(value: object, where: str) -> None:
    """Raise InvalidRequestError for a lone surrogate in a text, or in any text of plain data.

    UTF-8 has no surrogates, so no tokenizer can read one. The message says where it stands. Plain
    data that contain themselves, or stand too deep, are refused, too.

    Example:
        >>> check_unicode([{"role": "user", "content": "Zürich"}], "messages")
    """
    try:
        _check_all(value, where)
    except RecursionError:
        raise InvalidRequestError(f"{where} stands too deep, or contains itself") from None


def _check_all(value: object, where: str) -> None:
    if isinstance(value, str):
        if not value.isascii():
            _check(value, where)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            _check_all(name, f"a name in {where}")
            _check_all(part, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            _check_all(part, f"{where}[{index}]")


def check_conversation(conversation: Conversation) -> None:
    """Raise InvalidRequestError for a text of a conversation that no tokenizer can read."""
    check_unicode(conversation.messages, "messages")
    check_unicode(conversation.tools, "tools")
    check_unicode(conversation.template, "chat_template_kwargs")


def _check(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{where} has a lone surrogate, {described(text[error.start])}, at position "
            f"{error.start}; allowed is text that UTF-8 can encode"
        ) from error
