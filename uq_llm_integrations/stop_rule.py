"""The rule by which a sample that is too uncertain ends inside the engine."""

from dataclasses import dataclass
from typing import Literal, get_args

from uq_llm_integrations.errors import ConfigurationError, described

Statistic = Literal["entropy", "self_certainty"]


@dataclass(frozen=True)
class EarlyStop:
    """Ends a sample inside the engine when its last `window` tokens are too uncertain on average.

    `statistic` is 'entropy' or 'self_certainty', both higher where the model is less certain, and
    `above` the threshold in nats (DeepConf, https://arxiv.org/abs/2508.15260, with exact
    statistics in place of the top k). Raises ConfigurationError for values that can never work.
    """

    above: float
    window: int = 16
    statistic: Statistic = "entropy"

    def __post_init__(self) -> None:
        above, window = self.above, self.window
        if isinstance(above, bool) or not isinstance(above, int | float) or above != above:
            raise _wrong("above", above, "it must be a number")
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise _wrong("window", window, "allowed are whole numbers from 1")
        if self.statistic not in get_args(Statistic):
            allowed = " and ".join(map(repr, get_args(Statistic)))
            raise _wrong("statistic", self.statistic, f"allowed are {allowed}")


def _wrong(name: str, value: object, allowed: str) -> ConfigurationError:
    return ConfigurationError(f"early_stop.{name} is {described(value)}; {allowed}")
