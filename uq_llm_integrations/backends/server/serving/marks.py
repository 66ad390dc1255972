"""What the processes of a server, and its clients, agree upon."""

from collections.abc import Mapping
from typing import NamedTuple

NAME = "uq_llm"
"""The plugin's name, which vLLM's variable VLLM_PLUGINS must have among others."""

VARIABLE = "VLLM_PLUGINS"

VERSION = 1
"""The version of the fields and routes that clients see."""

MARK = "uq_llm_statistics"
"""The key in `SamplingParams.extra_args` of a request whose statistics are wanted. Its value is the
`Mark` as a list."""

VALUES = 7
"""The float64 values that travel for each token: the `SUMS` and the log-probability."""

WIDTH = 2 * VALUES
"""The columns that they take among a token's log-probabilities, as pairs of int32."""

NOTHING_SCORED = -1


class Mark(NamedTuple):
    """What the engine's processes need to know of a request whose statistics are wanted."""

    scored_from: int = NOTHING_SCORED
    """The first token of the prompt to be scored; `NOTHING_SCORED` where none is."""
    is_all: bool = False
    """Whether the request itself asked for no log-probabilities, so that these are all it needs."""

    @property
    def scores_prompt(self) -> bool:
        """Whether tokens of the prompt are scored."""
        return self.scored_from >= 0


def read_mark(extra_args: object) -> Mark | None:
    """Return the mark in `SamplingParams.extra_args`, None where there is none."""
    value = extra_args.get(MARK) if isinstance(extra_args, dict) else None
    if isinstance(value, list | tuple) and [*map(type, value)] == [int, bool]:
        return Mark(max(value[0], NOTHING_SCORED), value[1])
    return None


def is_switched_on(plugins: str | None) -> bool:
    """Return whether the value of `VARIABLE` names the plugin; without one, vLLM loads them all."""
    return plugins is not None and NAME in plugins.split(",")


def without_plugin(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what is to be set for an engine that is no server's: other plugins stay.

    Example:
        >>> without_plugin({"VLLM_PLUGINS": "other,uq_llm"})
        {'VLLM_PLUGINS': 'other'}
    """
    plugins = environment.get(VARIABLE)
    if plugins is None or not is_switched_on(plugins):
        return {}
    return {VARIABLE: ",".join(one for one in plugins.split(",") if one != NAME)}
