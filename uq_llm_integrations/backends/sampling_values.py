"""What values vLLM's sampling parameters may have, without any need of vLLM.

vLLM's engine reads them in a process of its own, strictly by their types, and what it cannot read
would leave all of its callers waiting. So what is exactly such a value is made one here (2.0 is 2),
and anything else is refused. `vllm.sampling_compat` checks them against the installed vLLM, too.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from numbers import Integral, Real
from typing import TypeVar

import numpy as np

from uq_llm_integrations.backends.unicode_text import check_unicode
from uq_llm_integrations.errors import InvalidRequestError, described, suggestion
from uq_llm_integrations.records import JsonObject

T = TypeVar("T")
Kind = Callable[[str, object], T]
"""Returns what a named value exactly is, or raises InvalidRequestError."""

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
GREATEST_NUMBER = float(np.finfo(np.float32).max)
_MOST_ID = 2**31 - 1


def _shown(limit: int) -> str:
    return {_LOWEST: "-2**63", _HIGHEST: "2**63 - 1"}.get(limit, str(limit))


def whole(low: int = _LOWEST, high: int = _HIGHEST) -> Kind[int]:
    """Return the kind of whole numbers from `low` to `high`."""
    allowed = f"from {_shown(low)} to {_shown(high)}"

    def kind(name: str, value: object) -> int:
        found = _whole(value)
        if found is None:
            raise _refused(name, value, f"it must be a whole number {allowed}")
        if not low <= found <= high:
            raise _refused(name, value, f"allowed are whole numbers {allowed}")
        return found

    return kind


def number(low: float = -GREATEST_NUMBER, high: float = GREATEST_NUMBER) -> Kind[float]:
    """Return the kind of finite numbers from `low` to `high`, as float32 has them."""
    end = f" to {high}" if high < GREATEST_NUMBER else ""
    allowed = f" from {low}{end}" if low > -GREATEST_NUMBER else " that float32 has"

    def kind(name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise _refused(name, value, f"it must be a number{allowed}")
        found = _float(value)
        if not low <= found <= high:  # so is NaN
            raise _refused(name, value, f"allowed are numbers{allowed}")
        return found

    return kind


def flag(name: str, value: object) -> bool:
    """Return a flag; 0 and 1 are flags."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if (found := _whole(value)) not in (0, 1):
        raise _refused(name, value, "it must be True or False")
    return found == 1


def texts(name: str, value: object) -> list[str]:
    """Return texts as a list; a string is one text."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
        raise _refused(name, value, "it must be a string or a list of strings")
    if "" in given:
        raise InvalidRequestError(
            "a stop string is empty; it would stop before the first token"
            if name == "stop"
            else f"a string of {name} is empty; each must have a character"
        )
    check_unicode(given, name)
    return [str.__str__(one) for one in given]


def stop_strings(stop: object) -> tuple[str, ...]:
    """Return the stop strings of a call, where a string is one, and None stands for none.

    Example:
        >>> stop_strings("END")
        ('END',)
    """
    return () if stop is None else tuple(texts("stop", stop))


def token_ids(name: str, value: object) -> list[int]:
    """Return token ids as a list."""
    given = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        raise _refused(name, value, "it must be a list of token ids")
    is_plain = set(map(type, given)) == {int}  # of thousands, each time
    if is_plain and min(given) >= 0 and max(given) <= _MOST_ID:
        return list(given)
    return [_token_id(f"a token of {name}", one) for one in given]


def biases(name: str, value: object) -> dict[int, float]:
    """Return what token ids are biased by; OpenAI's API writes the ids as strings."""
    if not isinstance(value, Mapping):
        raise _refused(name, value, "it must map token ids to numbers")
    found = {
        _token_id(f"a token of {name}", _read_id(key)): _bias(f"{name}[{key!r}]", one)
        for key, one in value.items()
    }
    if len(found) < len(value):
        raise _refused(name, value, "it must have each token id once")
    return found


def plain(name: str, value: object) -> object:
    """Return plain data: what JSON has, of numbers that 64 bits have; tuples become lists."""
    try:
        return _plain(name, value)
    except RecursionError:
        raise InvalidRequestError(f"{name} has no end; it must be plain data") from None


def plain_mapping(name: str, value: object) -> dict[str, object]:
    """Return a mapping of names to plain data."""
    if not isinstance(value, Mapping):
        raise _refused(name, value, "it must map names to plain data")
    found = plain(name, value)
    assert isinstance(found, dict)
    return found


def options(name: str, value: object) -> object:
    """Return options as a mapping of names to plain data, or as vLLM's own object."""
    if is_dataclass(value) and not isinstance(value, type):
        return value
    if not isinstance(value, Mapping):
        raise _refused(name, value, "it must be a mapping, or vLLM's object of this name")
    return plain(name, value)


_token_id, _bias, _any_whole = whole(0, _MOST_ID), number(), whole()

KINDS: Mapping[str, Kind[object]] = {
    "temperature": number(0.0),
    "top_p": number(0.0, 1.0),
    "top_k": whole(-1),
    "min_p": number(0.0, 1.0),
    "seed": whole(),
    "presence_penalty": number(-2.0, 2.0),
    "frequency_penalty": number(-2.0, 2.0),
    "repetition_penalty": number(0.0),
    "max_tokens": whole(1),
    "min_tokens": whole(0),
    "stop": texts,
    "stop_token_ids": token_ids,
    "ignore_eos": flag,
    "bad_words": texts,
    "logit_bias": biases,
    "allowed_token_ids": token_ids,
    "structured_outputs": options,
    "skip_special_tokens": flag,
    "spaces_between_special_tokens": flag,
    "include_stop_str_in_output": flag,
    "repetition_detection": options,
    "thinking_token_budget": whole(-1, _MOST_ID),
    "watermarking": flag,
    "skip_reading_prefix_cache": flag,
    "routed_experts_prompt_start": whole(0),
    "stream_interval": whole(1),
    "extra_args": plain_mapping,
}
"""vLLM's sampling parameters that a caller may set, and what each of them is."""

SAMPLING_PARAMETERS = frozenset(KINDS)

MANAGED_PARAMETERS = frozenset(
    {
        "n",
        "logprobs",
        "flat_logprobs",
        "logprob_token_ids",
        "prompt_logprobs",
        "prompt_logprob_token_ids",
        "prompt_logprob_start",
        "detokenize",
        "output_kind",
        "skip_clone",
        "trace_decode_token_ids",
    }
)
"""vLLM's sampling parameters that the backend sets itself."""


def check_sampling(sampling: Mapping[str, object]) -> JsonObject:
    """Return sampling parameters with values of exactly their kinds; None stands for the default.

    Raises InvalidRequestError for unknown names and for values that can never work.

    Example:
        >>> check_sampling({"max_tokens": 1e2, "stop": "END", "temperature": 0})
        {'max_tokens': 100, 'stop': ['END'], 'temperature': 0.0}
    """
    return {name: sampling_value(name, value) for name, value in sampling.items()}


def sampling_value(name: str, value: object) -> object:
    """Return the value of one sampling parameter, see `check_sampling`."""
    if name not in KINDS:
        raise _unknown(name)
    return None if value is None else KINDS[name](name, value)


def _whole(value: object) -> int | None:
    """Return the whole number that a number is, None for any other and for what is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, Integral):
        return int(value)
    found = _float(value)
    return int(found) if math.isfinite(found) and found == int(found) == value else None


def _float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _read_id(key: object) -> object:
    return int(key) if isinstance(key, str) and re.fullmatch("[0-9]{1,18}", key) else key


def _plain(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        return {_name(name, key): _plain(f"{name}.{key}", part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{name}[{index}]", part) for index, part in enumerate(value)]
    if value is None or isinstance(value, bool | bytes):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return _plain(name, value.tolist())
    if isinstance(value, str):
        check_unicode(value, name)
        return str.__str__(value)
    if isinstance(value, int):
        return _any_whole(name, value)
    if isinstance(value, float):
        return float(value)
    raise _refused(name, value, "it must be plain data, as JSON has it")


def _name(where: str, key: object) -> str:
    if not isinstance(key, str):
        raise _refused(f"a name in {where}", key, "it must be a string")
    check_unicode(key, f"a name in {where}")
    return str.__str__(key)


def _refused(name: str, value: object, allowed: str) -> InvalidRequestError:
    return InvalidRequestError(f"{name} is {described(value)}; {allowed}")


def _unknown(name: str) -> InvalidRequestError:
    if name in MANAGED_PARAMETERS:
        return InvalidRequestError(f"{name} is set by the backend and cannot be passed")
    near = suggestion(str(name), SAMPLING_PARAMETERS)
    return InvalidRequestError(f"unknown sampling parameter {described(name)}{near}")
