"""Conditions on scores: small callables that are composed with `&`, `|` and `~`.

    uncertain = (score("entropy") > 1.5) | (agreement() < 0.5) | (worst_window("entropy", 8) > 3)

A condition says True, False, or None where the scores that it needs are not known well enough.
Whoever acts on a condition takes None for uncertain.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Result
from uq_llm_integrations.strategies.quantities import Quantity

Operator = Literal[">", ">=", "<", "<="]
_OPPOSITE: dict[Operator, Operator] = {">": "<=", "<=": ">", "<": ">=", ">=": "<"}


class Condition(ABC):
    """Says of a result's chosen candidate whether something holds."""

    @abstractmethod
    def __call__(self, result: Result) -> bool | None:
        """Return whether it holds, None where that cannot be known."""

    @abstractmethod
    def literals(self) -> Iterator[Condition]:
        """Yield the simple conditions that this one is made of."""

    @abstractmethod
    def clauses(self, *, negated: bool) -> list[list[Signed]]:
        """Return the disjunctive normal form of this condition, or of its negation."""

    @property
    def quantities(self) -> list[Quantity]:
        """What the condition compares."""
        return [one.quantity for one in self.literals() if isinstance(one, Comparison)]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that must be scored before this condition can be asked."""
        return tuple(dict.fromkeys(name for q in self.quantities for name in q.methods))

    @property
    def needs_samples(self) -> bool:
        """Whether it makes sense only where there are several candidates."""
        return any(quantity.needs_samples for quantity in self.quantities)

    def __and__(self, other: Condition) -> Condition:
        return And(self, other)

    def __or__(self, other: Condition) -> Condition:
        return Or(self, other)

    def __invert__(self) -> Condition:
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError("a condition is composed with &, | and ~, not with and, or, not")


@dataclass(frozen=True)
class Comparison(Condition):
    """A quantity against a threshold."""

    quantity: Quantity
    operator: Operator
    threshold: float

    def __post_init__(self) -> None:
        is_number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        if not is_number or math.isnan(self.threshold):
            raise ConfigurationError(
                f"the threshold of {self.quantity!r} is {self.threshold!r}; it must be a number"
            )

    def __call__(self, result: Result) -> bool | None:
        """Compare the quantity, or the interval that holds it."""
        ends = self.quantity(result)
        if ends is None:
            return None
        verdicts = {_holds(end, self.operator, self.threshold) for end in ends}
        return verdicts.pop() if len(verdicts) == 1 else None

    def literals(self) -> Iterator[Condition]:
        """Yield itself."""
        yield self

    def clauses(self, *, negated: bool) -> list[list[Signed]]:
        """Return one clause: the comparison, or the opposite one."""
        if not negated:
            return [[(self, True)]]
        opposite = Comparison(self.quantity, _OPPOSITE[self.operator], self.threshold)
        return [[(opposite, True)]]

    def __repr__(self) -> str:
        return f"{self.quantity!r} {self.operator} {self.threshold:g}"


@dataclass(frozen=True)
class Custom(Condition):
    """A condition of the user's own."""

    function: Callable[[Result], bool | None]
    name: str

    def __call__(self, result: Result) -> bool | None:
        """Ask the function."""
        return self.function(result)

    def literals(self) -> Iterator[Condition]:
        """Yield itself."""
        yield self

    def clauses(self, *, negated: bool) -> list[list[Signed]]:
        """Return one clause."""
        return [[(self, not negated)]]

    def __repr__(self) -> str:
        return self.name


Signed = tuple[Condition, bool]
"""A simple condition, and whether it is to hold."""


class _Composed(Condition):
    def __init__(self, *parts: Condition) -> None:
        for part in parts:
            if not isinstance(part, Condition):
                raise ConfigurationError(f"{part!r} is not a condition")
        self.parts = parts
        if not any(map(_can_hold, self.clauses(negated=False))):
            raise ConfigurationError(f"{self!r} can never hold")
        if not any(map(_can_hold, self.clauses(negated=True))):
            raise ConfigurationError(f"{self!r} always holds")

    def literals(self) -> Iterator[Condition]:
        """Yield those of all parts."""
        for part in self.parts:
            yield from part.literals()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.parts == getattr(other, "parts", None)

    def __hash__(self) -> int:
        return hash((type(self), self.parts))

    def _every(self, *, negated: bool) -> list[list[Signed]]:
        forms = [part.clauses(negated=negated) for part in self.parts]
        return [[one for clause in choice for one in clause] for choice in product(*forms)]

    def _some(self, *, negated: bool) -> list[list[Signed]]:
        return [clause for part in self.parts for clause in part.clauses(negated=negated)]


class And(_Composed):
    """Holds where all parts hold; one that does not settles it, whatever the others say."""

    def __call__(self, result: Result) -> bool | None:
        """Ask the parts until one does not hold."""
        verdicts = [part(result) for part in self.parts]
        return False if False in verdicts else (None if None in verdicts else True)

    def clauses(self, *, negated: bool) -> list[list[Signed]]:
        """Return the normal form, by De Morgan where negated."""
        return self._some(negated=True) if negated else self._every(negated=False)

    def __repr__(self) -> str:
        return "(" + " & ".join(map(repr, self.parts)) + ")"


class Or(_Composed):
    """Holds where any part holds; one that does settles it, whatever the others say."""

    def __call__(self, result: Result) -> bool | None:
        """Ask the parts."""
        verdicts = [part(result) for part in self.parts]
        return True if True in verdicts else (None if None in verdicts else False)

    def clauses(self, *, negated: bool) -> list[list[Signed]]:
        """Return the normal form, by De Morgan where negated."""
        return self._every(negated=True) if negated else self._some(negated=False)

    def __repr__(self) -> str:
        return "(" + " | ".join(map(repr, self.parts)) + ")"


class Not(_Composed):
    """Holds where its part does not."""

    def __call__(self, result: Result) -> bool | None:
        """Return the opposite."""
        verdict = self.parts[0](result)
        return None if verdict is None else not verdict

    def clauses(self, *, negated: bool) -> list[list[Signed]]:
        """Return the other of the part's two forms."""
        return self.parts[0].clauses(negated=not negated)

    def __repr__(self) -> str:
        return f"~{self.parts[0]!r}"


def _holds(value: float, operator: Operator, threshold: float) -> bool:
    match operator:
        case ">":
            return value > threshold
        case ">=":
            return value >= threshold
        case "<":
            return value < threshold
        case "<=":
            return value <= threshold


def _can_hold(clause: list[Signed]) -> bool:
    """Return whether comparisons of the same quantity leave room, and nothing is also denied."""
    if any((one, not wanted) in clause for one, wanted in clause):
        return False
    ranges: dict[Quantity, tuple[float, bool, float, bool]] = {}
    for one, _ in clause:
        if isinstance(one, Comparison):
            low, low_open, high, high_open = ranges.get(
                one.quantity, (-math.inf, False, math.inf, False)
            )
            edge, is_open = one.threshold, one.operator in "<>"
            if one.operator[0] == ">" and (edge, is_open) > (low, low_open):
                low, low_open = edge, is_open
            if one.operator[0] == "<" and (edge, not is_open) < (high, not high_open):
                high, high_open = edge, is_open
            ranges[one.quantity] = low, low_open, high, high_open
    return all(
        low < high or (low == high and not low_open and not high_open)
        for low, low_open, high, high_open in ranges.values()
    )
