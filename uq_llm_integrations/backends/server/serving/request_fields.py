"""The plugin's own fields of a request's body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from uq_llm_integrations.backends.server.serving.marks import (
    MARK,
    NOTHING_SCORED,
    Mark,
)
from uq_llm_integrations.errors import InvalidRequestError, described

LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Wish:
    """The statistics that a request wants."""

    has_rows: bool = False
    """Whether the answer has all sums of each token."""
    scored_from: int = NOTHING_SCORED
    """The first token of the prompt to be scored."""

    def as_extra_args(self) -> dict[str, Any]:
        """Return what is added to the request's `vllm_xargs`."""
        return {MARK: [*Mark(self.scored_from)]}


def read_wish(fields: dict[str, Any] | None, *, echoes_logprobs: bool = False) -> Wish | None:
    """Return what a body's further fields ask for, None where nothing is wanted.

    A field that is null counts as absent, since routers write bodies anew. `echoes_logprobs` says
    that the prompt's log-probabilities are returned anyway. Raises InvalidRequestError.

    Example:
        >>> read_wish({"uncertainty": "rows"}).has_rows
        True
    """
    given = fields or {}
    value, scored_from = given.get("uncertainty"), given.get("uncertainty_from")
    is_known = value is None or isinstance(value, bool) or value == "rows"
    if not is_known:
        raise InvalidRequestError(
            f"uncertainty is {described(value)}; allowed are true, 'rows' and false"
        )
    if scored_from is not None and not _is_index(scored_from):
        raise InvalidRequestError(
            f"uncertainty_from is {described(scored_from)}; allowed are whole numbers from 0"
        )
    if value is False:
        return None
    if scored_from is None:
        scored_from = 0 if echoes_logprobs else NOTHING_SCORED
    return Wish(value == "rows", scored_from)


def refuse_scoring(fields: dict[str, Any] | None) -> None:
    """Raise InvalidRequestError where a chat asks for its prompt to be scored."""
    if (fields or {}).get("uncertainty_from") is not None:
        raise InvalidRequestError(
            "uncertainty_from is a field of /v1/completions; a chat's prompt has no tokens to count"
        )


def _is_index(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST
