"""Reading our keys in the worker: what is not of their form is passed by.

The worker serves all callers, and an exception in it ends the engine of all. So nothing here
raises, whatever a request carries: a request with a malformed key is not observed.
"""

from math import isfinite
from typing import NamedTuple, TypeGuard

from uq_llm_integrations.backends.vllm.worker.early_stop import Rule
from uq_llm_integrations.backends.vllm.worker.protocol import (
    REQUEST_KEY,
    SCORE_KEY,
    STOP_KEY,
    TOKENS_KEY,
)

MOST_TOKENS = 4096
"""How many tokens one request may ask for under `TOKENS_KEY`; each is a row over the vocabulary."""

LARGEST = 2**31 - 1

_NONE = object()


class Keys(NamedTuple):
    """What a request asks of the probe."""

    request: str | None = None
    rule: Rule | None = None
    tokens: tuple[str, list[int]] | None = None
    score: tuple[str, int] | None = None


def read_keys(extra: object) -> Keys | None:
    """Return what `SamplingParams.extra_args` has of our keys, None where any is malformed."""
    if not isinstance(extra, dict):
        return Keys()
    request, rule = extra.get(REQUEST_KEY, _NONE), extra.get(STOP_KEY, _NONE)
    tokens, score = extra.get(TOKENS_KEY, _NONE), extra.get(SCORE_KEY, _NONE)
    read = Keys(
        request if isinstance(request, str) else None,
        _rule(rule),
        _tokens(tokens),
        _score(score),
    )
    given = (request, rule, tokens, score)
    is_whole = all(
        one is _NONE or known is not None for one, known in zip(given, read, strict=True)
    )
    return read if is_whole else None


def _rule(value: object) -> Rule | None:
    match value:
        case ["entropy" | "self_certainty" as statistic, window, int() | float() as above, token]:
            if _is_whole(window, 1) and _is_whole(token) and _is_finite(above):
                return statistic, window, float(above), token
    return None


def _tokens(value: object) -> tuple[str, list[int]] | None:
    match value:
        case [str() as name, [*ids]] if 0 < len(ids) <= MOST_TOKENS and all(map(_is_whole, ids)):
            return name, list(filter(_is_whole, ids))
    return None


def _score(value: object) -> tuple[str, int] | None:
    match value:
        case [str() as name, first] if _is_whole(first):
            return name, first
    return None


def _is_whole(value: object, least: int = 0) -> TypeGuard[int]:
    return type(value) is int and least <= value <= LARGEST


def _is_finite(value: float) -> bool:
    return type(value) is not bool and abs(value) <= LARGEST and isfinite(value)
