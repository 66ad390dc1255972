"""What a threshold promises, and the threshold, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from uq_llm_integrations.calibration.graded import as_scores, as_share
from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Score

Among = Literal["answered", "all"]
"""Of which questions the wrong answers are at most the share `risk`: of those that are answered, or
of all, those on which it abstains included."""

_LEAST_RISK = 1e-9


@dataclass(frozen=True)
class Guarantee(PlainRecord):
    """What is promised of new questions that come from where the graded ones came from.

    Example:
        >>> print(Guarantee(0.1, "answered", 0.05))
        at most 10% of the answers wrong, with 95% probability
    """

    risk: float
    among: Among = "answered"
    delta: float | None = 0.05
    """How probable it is at most that the graded questions mislead and the promise is broken. None
    for a risk that holds on average over all sets of graded questions, as among 'all' it does."""

    def __post_init__(self) -> None:
        if as_share(self.risk, "risk") < _LEAST_RISK:
            raise ConfigurationError(
                f"risk is {self.risk!r}; allowed is {_LEAST_RISK:g} at least, below which nobody "
                "could grade as many answers as it takes"
            )
        if self.among not in get_args(Among):
            raise ConfigurationError(f"among is {self.among!r}; allowed are 'answered' and 'all'")
        if self.among == "answered":
            as_share(math.nan if self.delta is None else self.delta, "delta")
        elif self.delta is not None:
            raise ConfigurationError(f"delta is {self.delta!r}; among 'all' it must be None")

    def __str__(self) -> str:
        return f"at most {percent(self.risk)} {self._terms}"

    @property
    def _terms(self) -> str:
        if self.delta is None:
            return "of all questions answered wrongly, on average"
        return f"of the answers wrong, with {percent(1 - self.delta)} probability"

    def refusal(self, best: float | None, why: str) -> str:
        """Return that it cannot be promised, what can, and why."""
        can = "nothing" if best is None else f"at most {percent(best)}"
        return f"{self} cannot be promised with this data; the best that can is {can}: {why}"


@dataclass(frozen=True)
class Threshold(PlainRecord):
    """Answer where the score is at most `value`, abstain elsewhere; or why there is no threshold.

    An unknown score is never answered. Where there is no threshold nothing is.
    """

    guarantee: Guarantee
    value: float | None
    questions: int
    """How many graded questions it rests on, and of these, how many would be answered, ..."""
    answered: int = 0
    wrong: int = 0
    """... how many of those are wrong, ..."""
    unknown: int = 0
    """... and how many of all have no known score."""
    reason: str | None = None
    """Why there is no threshold, and the best that can be promised."""
    best: float | None = None
    """Without a threshold: the lowest risk for which these data give one. It was found in them, so
    a promise of it needs other graded questions."""

    def __post_init__(self) -> None:
        if (self.value is None) != (self.reason is not None):
            raise ConfigurationError("a threshold has either a value or a reason why it has none")

    @property
    def coverage(self) -> float:
        """The share of the graded questions that would be answered."""
        return self.answered / self.questions if self.questions else 0.0

    def accepts(self, score: float | Score | None) -> bool:
        """Return whether an answer of this score is given.

        Example:
            >>> Threshold(Guarantee(0.1), 1.5, questions=100).accepts(None)
            False
        """
        value = float(as_scores([score], "score")[0])
        return self.value is not None and value <= self.value  # NaN is not


@dataclass(frozen=True)
class GroupThresholds(PlainRecord):
    """One threshold for each group of questions; questions of other groups are not answered."""

    thresholds: Mapping[str, Threshold]
    simultaneous: bool = False
    """Whether the probability holds for all groups at once, rather than for each by itself."""

    def __post_init__(self) -> None:
        if not self.thresholds:
            raise ConfigurationError("thresholds is empty; wanted is one a group")

    def threshold(self, group: object) -> Threshold:
        """Return a group's threshold, one without a value where the group was not in the data."""
        known = self.thresholds.get(str(group))
        if known is not None:
            return known
        guarantee = next(iter(self.thresholds.values())).guarantee
        why = f"there are no graded questions of group {str(group)!r}"
        return Threshold(guarantee, None, 0, reason=guarantee.refusal(None, why))

    def accepts(self, score: float | Score | None, group: object) -> bool:
        """Return whether an answer of this score to a question of this group is given."""
        return self.threshold(group).accepts(score)


def percent(share: float) -> str:
    """Return a share as text: 0.1 is 10%.

    Example:
        >>> percent(0.0725)
        '7.25%'
    """
    return f"{100 * share:.4g}%"
