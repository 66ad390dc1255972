"""How the tokens of a request are to be drawn, by vLLM's names and with vLLM's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from uq_llm_integrations.errors import InvalidRequestError

# Below this vLLM takes a temperature as 0.
_LOWEST_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class HFSampling:
    """The sampling parameters that are drawn by here; the names are vLLM's.

    `check_sampling` has seen to the ranges that are the same for all backends.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int = 16
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None
    ignore_eos: bool = False
    repetition_penalty: float = 1.0
    include_stop_str_in_output: bool = False

    @classmethod
    def of(cls, sampling: Mapping[str, Any]) -> HFSampling:
        """Read a request's `sampling`; None stands for the default.

        Raises InvalidRequestError for a name that is not drawn by here and for a value that can
        never work.
        """
        allowed = {one.name for one in fields(cls)}
        unknown = sorted(sampling.keys() - allowed)
        if unknown:
            raise InvalidRequestError(
                f"the Hugging Face backend does not draw by {', '.join(unknown)}; "
                f"allowed are {', '.join(sorted(allowed))}"
            )
        values = {name: value for name, value in sampling.items() if value is not None}
        stop = values.get("stop", ())
        values["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        _check_values(values)
        values["stop_token_ids"] = tuple(values.get("stop_token_ids", ()))
        return cls(**values)

    def __post_init__(self) -> None:
        if self.min_tokens > self.max_tokens:
            raise InvalidRequestError(
                f"min_tokens is {self.min_tokens}; allowed are at most max_tokens, "
                f"{self.max_tokens}"
            )

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is taken each time."""
        return self.temperature < _LOWEST_TEMPERATURE


def _check_values(values: Mapping[str, Any]) -> None:
    for name in ("top_p", "repetition_penalty"):
        if values.get(name, 1.0) == 0:
            raise InvalidRequestError(f"{name} is 0; it must be more")
    for name in ("top_k", "max_tokens", "min_tokens", "seed"):
        if not _is_whole(values.get(name, 0)):
            raise InvalidRequestError(f"{name} is {values[name]!r}; it must be a whole number")
    if values.get("top_k", 0) < -1:
        raise InvalidRequestError(f"top_k is {values['top_k']}; allowed are -1, 0 (all) and more")
    ids = values.get("stop_token_ids", ())
    if not isinstance(ids, list | tuple) or not all(map(_is_whole, ids)):
        raise InvalidRequestError(f"stop_token_ids is {ids!r}; it must be a list of token ids")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
