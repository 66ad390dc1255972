"""What servers answer when they do not answer: statuses and failures as errors of this package."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    EngineTimeoutError,
    InvalidRequestError,
    ModelNotFoundError,
    UncertaintyError,
)

ELSEWHERE = frozenset({429, 502, 503, 504})
"""Statuses after which another server is asked: this one has done nothing of the request."""

_SHOWN_CHARACTERS = 600

_KINDS: Mapping[int, type[UncertaintyError]] = {
    401: ConfigurationError,
    403: ConfigurationError,
    407: ConfigurationError,
    408: EngineTimeoutError,
    429: EngineBusyError,
    502: EngineDeadError,
    503: EngineDeadError,
    504: EngineTimeoutError,
}


class ElsewhereError(Exception):
    """One server failed such that another one may be asked; `error` is raised where none is left.

    `retry_after` is in how many seconds this one may be asked again, where it said so.
    """

    def __init__(self, error: UncertaintyError, retry_after: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.retry_after = error, retry_after


def status_error(url: str, status: int, said: str) -> UncertaintyError:
    """Return the error of an answer with a status that is not 200; `said` is its message."""
    tail = f": {said}" if said else ""
    if status in (401, 403, 407):
        return ConfigurationError(
            f"{url} does not let this client in (HTTP {status}); give its api_key, or headers"
        )
    if status == 404 and "model" in said:
        return ModelNotFoundError(f"{url} refuses the model{tail}")
    if 300 <= status < 400:
        return ConfigurationError(
            f"{url} redirects (HTTP {status}); give as base_url where it leads to"
        )
    if status == 404:
        return ConfigurationError(f"{url} has no such route (HTTP 404){tail}")
    if status in _KINDS:
        return _KINDS[status](f"{url} answered with HTTP {status}{tail}")
    if 400 <= status < 500:
        return InvalidRequestError(f"{url} refuses the request (HTTP {status}){tail}")
    return EngineError(f"{url} failed (HTTP {status}){tail}")


def stated_error(url: str, body: Mapping[str, Any]) -> tuple[int, UncertaintyError] | None:
    """Return status and error that a body states in the place of an answer, None if it does not."""
    stated = body.get("error")
    if stated is None:
        return None
    code = stated.get("code") if isinstance(stated, Mapping) else None
    status = code if type(code) is int and 400 <= code < 600 else 500
    return status, status_error(url, status, _message(body))


def said_in(data: bytes) -> str:
    """Return what the body of an error says, cut and without what no message should have."""
    try:
        found = _message(json.loads(data))
    except (ValueError, RecursionError):
        found = data[: 4 * _SHOWN_CHARACTERS].decode(errors="replace")
    return _shown(found)


def _message(body: object) -> str:
    """Return the message of vLLM's, OpenAI's, FastAPI's or any other error."""
    if isinstance(body, Mapping):
        for name in ("error", "message", "detail"):
            if body.get(name):
                return _message(body[name])
    return _shown(body if isinstance(body, str) else json.dumps(body))


def _shown(text: str) -> str:
    plain = re.sub(r"\s+", " ", "".join(one if one.isprintable() else " " for one in text)).strip()
    return plain if len(plain) <= _SHOWN_CHARACTERS else f"{plain[:_SHOWN_CHARACTERS]}..."


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header, in both of its forms; None for any other.

    Example:
        >>> retry_after("2"), retry_after("soon")
        (2.0, None)
    """
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip()[:1].isdigit() else _until(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _until(value: str) -> float:
    when = parsedate_to_datetime(value)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (when - datetime.now(UTC)).total_seconds()
