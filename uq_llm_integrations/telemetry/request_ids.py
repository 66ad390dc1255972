"""The id of a call: in its span and its log records, and in the requests that servers get."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from uuid import uuid4

from uq_llm_integrations.errors import InvalidRequestError, described

HEADER = "X-Request-Id"
"""vLLM makes its own id of it: `cmpl-` and what the header says."""

_ALLOWED = re.compile(r"[A-Za-z0-9._-]{1,128}")


class CallId:
    """The id of a call, and those of the requests that it leads to, of which no two are the same.

    A server that runs two requests of one id at once may refuse the second.
    """

    def __init__(self, text: str | None = None) -> None:
        self.text = text or uuid4().hex
        self._numbers = count(1)

    def next(self) -> str:
        """Return the id of one more request."""
        return f"{self.text}-{next(self._numbers)}"


_current: ContextVar[CallId | None] = ContextVar("call_id", default=None)


@contextmanager
def request_id(text: str) -> Iterator[None]:
    """Give all calls within this block an id of one's own, such as that of an HTTP request.

    Raises InvalidRequestError for anything but 1 to 128 letters, digits, dots, dashes and
    underscores of ASCII: it goes into a header.

    Example:
        >>> with request_id("order-17"):
        ...     current_request_id()
        'order-17'
    """
    if not isinstance(text, str) or not _ALLOWED.fullmatch(text):
        raise InvalidRequestError(
            f"the request id is {described(text)}; allowed are 1 to 128 letters, digits, dots, "
            "dashes and underscores"
        )
    with active(CallId(text)):
        yield


@contextmanager
def active(one: CallId) -> Iterator[None]:
    """Have an id be the current one within this block."""
    token = _current.set(one)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> CallId | None:
    """Return the id of the call that this runs within."""
    return _current.get()


def current_request_id() -> str | None:
    """Return the id of the call that this runs within, None outside of any."""
    one = _current.get()
    return one.text if one else None


class RequestIdFilter(logging.Filter):
    """Gives every log record a `request_id`, None outside of a call.

    Example:
        handler.addFilter(RequestIdFilter())
        handler.setFormatter(logging.Formatter("%(request_id)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through, with the id."""
        if not hasattr(record, "request_id"):
            record.request_id = current_request_id()
        return True
