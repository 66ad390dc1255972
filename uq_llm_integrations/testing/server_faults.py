"""What can happen to one request on a server, and each kind of it by its name."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import numpy as np

from uq_llm_integrations.backends.token_statistics import COLUMNS

Body = dict[str, Any]
"""A JSON object."""

Change = Callable[[Body], Body | bytes]

_HANG_SECONDS = 3600.0


@dataclass
class Fault:
    """What happens to one request instead of, or within, its answer.

    Example:
        >>> Fault(status=429, headers={"Retry-After": "2"}).status
        429
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """What is sent in the place of an answer, as it is."""
    drop_at: int | None = None
    """Close the connection before this token of a stream; 0 is before anything is said."""
    delay: float = 0.0
    """Seconds before anything is said."""
    token_delay: float = 0.0
    """Seconds before each piece of a stream."""
    stall_at: int | None = None
    """Say nothing for an hour before this token of a stream, or within a whole body."""
    change: Change | None = None
    """What becomes of each body, and of each event of a stream."""
    cut_at: float | None = None
    """Send only this share of a whole body's bytes, and close the connection."""
    end_at: int | None = None
    """End a stream before this token as if it were whole, without a finish reason."""
    resets: bool = False
    """Whether a connection that is closed early is reset, rather than ended."""
    dies: Literal["before", "during", "after"] | None = None
    """The server takes no connections any more, and closes all others, at this time."""


def changed_choices(change: Callable[[Body], object]) -> Change:
    """Return what changes each choice of a body in place, for `Fault.change`."""

    def whole(body: Body) -> Body:
        for choice in body.get("choices", ()):
            change(choice)
        return body

    return whole


def changed_rows(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Return what changes the exact rows of each choice, [T, columns], for `Fault.change`."""

    def rows(choice: Body) -> None:
        found = choice.get("uncertainty")
        if found and choice["token_ids"]:
            data = np.frombuffer(base64.b64decode(found["rows"]), "<f8").reshape(-1, len(COLUMNS))
            sent = np.ascontiguousarray(change(data.copy()), "<f8")
            found["rows"] = base64.b64encode(sent.tobytes()).decode()

    return changed_choices(rows)


def changed_logprobs(change: Callable[[list[Any]], list[Any]], *names: str) -> Change:
    """Return what changes lists within the `logprobs` of each choice, for `Fault.change`."""

    def logprobs(choice: Body) -> None:
        found = choice.get("logprobs")
        for name in names or ("tokens", "token_logprobs", "top_logprobs"):
            if found:
                found[name] = change(found[name])

    return changed_choices(logprobs)


def _filled(value: float) -> Callable[[Random], Fault]:
    def make(random: Random) -> Fault:
        def change(rows: np.ndarray) -> np.ndarray:
            columns = [at for at, name in enumerate(COLUMNS) if name not in ("token", "stopped")]
            rows[random.randrange(len(rows)), random.choice(columns)] = value
            return rows

        return Fault(change=changed_rows(change))

    return make


def _rows(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Random], Fault]:
    return lambda random: Fault(change=changed_rows(change))


def _logprobs(change: Callable[[list[Any]], list[Any]], *names: str) -> Callable[[Random], Fault]:
    return lambda random: Fault(change=changed_logprobs(change, *names))


def _choices(change: Callable[[Body], object]) -> Callable[[Random], Fault]:
    return lambda random: Fault(change=changed_choices(change))


def _status(*statuses: int) -> Callable[[Random], Fault]:
    return lambda random: Fault(status=random.choice(statuses))


def _instead(*bodies: bytes) -> Callable[[Random], Fault]:
    def make(random: Random) -> Fault:
        said = random.choice(bodies)
        return Fault(change=lambda body: said)

    return make


def _busy(random: Random) -> Fault:
    after = random.choice(["0", "1", "3600", "soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT"])
    return Fault(status=429, headers={"Retry-After": after})


def _dies_during(random: Random) -> Fault:
    return Fault(dies="during", drop_at=random.randrange(1, 8), cut_at=random.random())


def _cut_off(*, resets: bool) -> Callable[[Random], Fault]:
    def make(random: Random) -> Fault:
        return Fault(drop_at=random.randrange(1, 8), cut_at=random.random(), resets=resets)

    return make


def _wider(row: Mapping[str, float]) -> Body:
    return {**row, "token_id:255": -9.0, "token_id:254": -9.0}


def _repeated_choices(body: Body) -> Body:
    return {**body, "choices": [*body["choices"], *body["choices"]]}


SERVER_FAULTS: Mapping[str, Callable[[Random], Fault]] = {
    "dies before": lambda random: Fault(dies="before"),
    "dies during": _dies_during,
    "dies after": lambda random: Fault(dies="after"),
    "closes before": lambda random: Fault(drop_at=0),
    "closes during": _cut_off(resets=False),
    "resets before": lambda random: Fault(drop_at=0, resets=True),
    "resets during": _cut_off(resets=True),
    "hangs before": lambda random: Fault(delay=_HANG_SECONDS),
    "hangs during": lambda random: Fault(stall_at=random.randrange(1, 8), delay=0.0),
    "slow drip": lambda random: Fault(token_delay=random.uniform(0.001, 0.01)),
    "truncated stream": lambda random: Fault(end_at=random.randrange(0, 8)),
    "4xx": _status(400, 401, 403, 404, 408, 413, 422),
    "5xx": _status(500, 501, 502, 503, 504),
    "429": _busy,
    "redirect": _status(301, 302, 307),
    "NaN rows": _filled(float("nan")),
    "infinite rows": _filled(float("inf")),
    "impossible rows": _filled(1e9),
    "missing rows": _rows(lambda rows: rows[:-1]),
    "doubled rows": _rows(lambda rows: rows.repeat(2, axis=0)),
    "one row more": _rows(lambda rows: np.concatenate([rows, rows[-1:]])),
    "rows of other tokens": _rows(lambda rows: rows + (np.arange(len(COLUMNS)) == 7)),
    "no rows": _choices(lambda choice: choice.pop("uncertainty", None)),
    "missing log-probabilities": _logprobs(lambda found: found[:-1]),
    "doubled log-probabilities": _logprobs(lambda found: [one for one in found for _ in (0, 1)]),
    "k+1 log-probabilities": _logprobs(lambda found: [*map(_wider, found)], "top_logprobs"),
    "reordered log-probabilities": _logprobs(lambda found: found[1:] + found[:1], "tokens"),
    "no log-probabilities": _choices(lambda choice: choice.pop("logprobs", None)),
    "wrong lengths": _choices(lambda choice: choice["token_ids"].extend([65] * 4096)),
    "no token ids": _choices(lambda choice: choice.pop("token_ids")),
    "tokens beyond the vocabulary": _choices(lambda choice: choice["token_ids"].append(10**6)),
    "no text": _choices(lambda choice: choice.pop("text")),
    "empty answer": _choices(
        lambda choice: choice.update(
            text="", token_ids=[], uncertainty=None, logprobs=None, finish_reason="stop"
        )
    ),
    "broken UTF-8": _instead(b'{"choices": [{"index": 0, "text": "\xff\xfe\xe6"}]}'),
    "invalid JSON": _instead(b'{"choices": [{"index": 0', b"<html>", b"", b"NaN", b"[" * 100_000),
    "another JSON": _instead(b"[]", b"null", b"{}", b'{"choices": {}}', b'{"choices": [1]}'),
    "an answer to another prompt": _choices(
        lambda choice: choice.update(prompt_token_ids=[1, 2, 3])
    ),
    "doubled choices": lambda random: Fault(change=_repeated_choices),
    "a choice nobody asked for": _choices(lambda choice: choice.update(index=7)),
    "an error within an answer": _instead(
        b'{"error": {"message": "CUDA out of memory", "code": 500}}',
        b'{"error": {"message": "engine dead", "code": 503}}',
        b'{"error": "anything"}',
    ),
}
"""Kinds of faults of a server by their names; each makes a fault by a random generator.

Example:
    >>> from random import Random
    >>> SERVER_FAULTS["4xx"](Random(1)).status
    401
"""
