"""Metadata that come from outside, as of a message that was stored: read, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from uq_llm_integrations.errors import InvalidRequestError, described, reason
from uq_llm_integrations.records import JsonObject

_Interval = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
_Span = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


@with_config(ConfigDict(extra="allow"))
class _Columns(TypedDict, total=False):
    """What is read of `by_token`, one entry a token."""

    logprob: list[float]
    entropy: list[float]
    entropy_lower: list[float]
    entropy_upper: list[float]


@with_config(ConfigDict(extra="allow"))
class _GivenCall(TypedDict):
    """What is read of a call, beside what `_GivenPart` has."""

    name: str
    id: str | None


@with_config(ConfigDict(extra="allow"))
class _GivenGrounding(TypedDict, total=False):
    """What is read of how an answer rests on its sources."""

    support: FiniteFloat | None


@with_config(ConfigDict(extra="allow"))
class _Given(TypedDict, total=False):
    """What is read of an answer's metadata."""

    scores: dict[str, FiniteFloat | None]
    reasons: dict[str, str]
    intervals: dict[str, _Interval]
    by_token: _Columns
    grounding: _GivenGrounding
    tool_calls: list[_GivenCall]
    final: JsonObject | None
    parts: list[JsonObject | None]
    condition: str | None
    uncertain: bool
    approved: bool


@with_config(ConfigDict(extra="allow"))
class _GivenPart(TypedDict, total=False):
    """What is read of the metadata of a part of an answer, such as a call."""

    scores: dict[str, FiniteFloat | None]
    tokens: _Span
    uncertain: bool
    approved: bool


_ANSWER: TypeAdapter[_Given] = TypeAdapter(_Given)
_PART: TypeAdapter[_GivenPart] = TypeAdapter(_GivenPart)


def given_metadata(found: object) -> JsonObject:
    """Return an answer's metadata as they are read; InvalidRequestError says what cannot be.

    Example:
        >>> given_metadata({"scores": {"entropy": 0.3}})
        {'scores': {'entropy': 0.3}}
    """
    metadata = _read(_ANSWER, found)
    columns = metadata.get("by_token", {})
    lengths = {len(columns[name]) for name in _Columns.__annotations__ if name in columns}
    if len(lengths) > 1:
        raise InvalidRequestError(f"{_WHAT} by_token: the columns differ in their lengths")
    return metadata


def given_part(found: object) -> JsonObject:
    """Return the metadata of a part as they are read, see `given_metadata`."""
    return _read(_PART, found)


_WHAT = "the metadata of an answer's uncertainty cannot be read:"


def _read(kind: TypeAdapter[Any], found: object) -> JsonObject:
    if not isinstance(found, Mapping):
        raise InvalidRequestError(f"{_WHAT} they are {described(found)}, and not a mapping")
    try:
        return dict(kind.validate_python(dict(found)))
    except (ValidationError, RecursionError) as error:
        raise InvalidRequestError(f"{_WHAT} {reason(error)}") from None
