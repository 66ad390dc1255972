"""Conditions on scores: small callables that are composed with `&`, `|` and `~`.

    uncertain = (score("entropy") > 1.5) | (agreement() < 0.5) | (worst_window("entropy", 8) > 3)

A condition returns True, False, or None where the scores that it needs are not known well enough.
Whoever acts on a condition asks `is_met`, which takes None for uncertain and refuses a score that
was not computed at all. A condition reads a `Result`, or anything else with the scores of one
answer (`Scored`).
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Literal, NamedTuple, Protocol

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError, described
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import check_available, find_method
from uq_llm_integrations.records import NOT_REQUESTED, Result, Score, TokenTrace

Operator = Literal[">", ">=", "<", "<="]
_OPPOSITE: dict[Operator, Operator] = {">": "<=", "<=": ">", "<": ">=", ">=": "<"}

MOST_LEVELS = 32
"""How deep conditions may be composed of others."""

MOST_COMPARISONS = 100
"""How many simple conditions one may be made of."""

MOST_CLAUSES = 1000
"""How many ways to hold, or not to, a condition may have: the size of its normal forms."""


def is_finite(value: float) -> bool:
    """Whether a number is one that a float can hold."""
    return abs(value) <= sys.float_info.max


Interval = tuple[float, float]
"""The lower and the upper end of what is known; equal where it is exact."""


class Scored(Protocol):
    """What has the scores of one answer: a `Result`, or a view of a framework's metadata."""

    def score(self, name: str) -> Score:
        """Return a method's score by its name; one that is not there has a reason."""

    @property
    def trace(self) -> TokenTrace:
        """What is known of the answer's tokens."""


class Quantity(ABC):
    """A number that is known of an answer. Compare it with a threshold to get a condition."""

    needs_samples: ClassVar[bool] = False
    """Whether it is taken of several candidates."""
    needs_sources: ClassVar[bool] = False
    """Whether it is taken of an answer and its sources."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that must be scored first."""
        return ()

    @property
    def token_methods(self) -> tuple[str, ...]:
        """The methods whose values are read token by token, of the trace."""
        return ()

    @abstractmethod
    def __call__(self, scored: Scored) -> Interval | None:
        """Return the interval that holds it, None where nothing is known."""

    def __gt__(self, threshold: float) -> Comparison:
        return Comparison(self, ">", threshold)

    def __ge__(self, threshold: float) -> Comparison:
        return Comparison(self, ">=", threshold)

    def __lt__(self, threshold: float) -> Comparison:
        return Comparison(self, "<", threshold)

    def __le__(self, threshold: float) -> Comparison:
        return Comparison(self, "<=", threshold)


class Condition(ABC):
    """Decides whether something holds for an answer: for a result, for its chosen candidate."""

    @abstractmethod
    def __call__(self, scored: Scored) -> bool | None:
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
        """The methods that must be scored before this condition can be decided."""
        return tuple(dict.fromkeys(name for q in self.quantities for name in q.methods))

    @property
    def token_methods(self) -> tuple[str, ...]:
        """The methods whose values it reads token by token, of the trace."""
        return tuple(dict.fromkeys(name for q in self.quantities for name in q.token_methods))

    @property
    def needs_samples(self) -> bool:
        """Whether it makes sense only where there are several candidates."""
        return any(quantity.needs_samples for quantity in self.quantities)

    @property
    def needs_sources(self) -> bool:
        """Whether it makes sense only of an answer that was grounded in sources."""
        return any(quantity.needs_sources for quantity in self.quantities)

    def is_met(self, scored: Scored) -> bool:
        """Return whether it holds, or cannot be known not to.

        Raises InvalidRequestError where a method was not scored at all: that is no doubt about the
        answer.
        """
        scores = {name: score_of(scored, name) for name in self.methods}
        missing = [name for name, one in scores.items() if one.reason == NOT_REQUESTED]
        if missing:
            raise InvalidRequestError(
                f"the condition {described(self)} needs {', '.join(missing)}, which the model did "
                f"not compute; add to its methods: methods={missing!r}"
            )
        return self(scored) is not False

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
        if not is_number or not (is_finite(self.threshold) or abs(self.threshold) == math.inf):
            raise ConfigurationError(
                f"the threshold of {self.quantity!r} is {described(self.threshold)}; "
                "it must be a number"
            )

    def __call__(self, scored: Scored) -> bool | None:
        """Compare the quantity, or the interval that holds it."""
        interval = self.quantity(scored)
        if interval is None:
            return None
        outcomes = {_holds(end, self.operator, self.threshold) for end in interval}
        return outcomes.pop() if len(outcomes) == 1 else None

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
        # Numpy's would be written with their type, and -0.0 is 0.
        threshold = float(self.threshold) + 0.0
        short = f"{threshold:g}"
        number = short if float(short) == threshold else repr(threshold)
        return f"{self.quantity!r} {self.operator} {number}"


@dataclass(frozen=True)
class Custom(Condition):
    """A condition of the user's own, on a whole result: elsewhere it cannot be known.

    Example:
        >>> long = Custom(lambda result: len(result.text) > 500, "the answer is long")
    """

    function: Callable[[Result], bool | None]
    name: str

    def __call__(self, scored: Scored) -> bool | None:
        """Call the function."""
        return self.function(scored) if isinstance(scored, Result) else None

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
                raise ConfigurationError(f"{described(part)} is not a condition")
        self.parts = tuple(self._flat(parts))
        self._check_size()
        if not any(map(_can_hold, self.clauses(negated=False))):
            raise ConfigurationError(f"{described(self)} can never hold")
        if not any(map(_can_hold, self.clauses(negated=True))):
            raise ConfigurationError(f"{described(self)} always holds")

    def _check_size(self) -> None:
        size = _size(self)
        for count, most, of in (
            (size.levels, MOST_LEVELS, "levels of brackets and `not`"),
            (size.literals, MOST_COMPARISONS, "comparisons"),
            (max(size.held, size.denied), MOST_CLAUSES, "ways to be met or not"),
        ):
            if count > most:
                raise ConfigurationError(f"a condition has {count} {of}; allowed are {most}")

    def _flat(self, parts: Iterable[Condition]) -> Iterator[Condition]:
        """Yield the parts; (a and b) and c is a and b and c, as in text."""
        for part in parts:
            if isinstance(part, And | Or) and type(part) is type(self):
                yield from part.parts
            else:
                yield part

    def literals(self) -> Iterator[Condition]:
        """Yield those of all parts."""
        for part in self.parts:
            yield from part.literals()

    def identity_parts(self) -> object:
        """Return the parts."""
        return self.parts

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

    def __call__(self, scored: Scored) -> bool | None:
        """Decide all parts."""
        outcomes = [part(scored) for part in self.parts]
        return False if False in outcomes else (None if None in outcomes else True)

    def clauses(self, *, negated: bool) -> list[list[Signed]]:
        """Return the normal form, by De Morgan where negated."""
        return self._some(negated=True) if negated else self._every(negated=False)

    def __repr__(self) -> str:
        return "(" + " and ".join(map(repr, self.parts)) + ")"


class Or(_Composed):
    """Holds where any part holds; one that does settles it, whatever the others say."""

    def __call__(self, scored: Scored) -> bool | None:
        """Decide all parts."""
        outcomes = [part(scored) for part in self.parts]
        return True if True in outcomes else (None if None in outcomes else False)

    def clauses(self, *, negated: bool) -> list[list[Signed]]:
        """Return the normal form, by De Morgan where negated."""
        return self._every(negated=True) if negated else self._some(negated=False)

    def __repr__(self) -> str:
        return "(" + " or ".join(map(repr, self.parts)) + ")"


class Not(_Composed):
    """Holds where its part does not."""

    def __call__(self, scored: Scored) -> bool | None:
        """Return the opposite."""
        outcome = self.parts[0](scored)
        return None if outcome is None else not outcome

    def clauses(self, *, negated: bool) -> list[list[Signed]]:
        """Return the other of the part's two forms."""
        return self.parts[0].clauses(negated=not negated)

    def __repr__(self) -> str:
        return f"not {self.parts[0]!r}"


def score_of(scored: Scored, name: str) -> Score:
    """Return a method's score by any of its names."""
    found = (scored.score(one) for one in (name, *find_method(name).names))
    known = (one for one in found if one.reason != NOT_REQUESTED)
    return next(known, Score(name, reason=NOT_REQUESTED))


def check_condition(
    condition: Condition, samples: int, capabilities: Capabilities, options: MethodOptions
) -> None:
    """Raise ConfigurationError for a condition that can never be decided there."""
    check_available((*condition.methods, *condition.token_methods), capabilities, options)
    if condition.needs_samples and samples < 2:
        raise ConfigurationError(f"{described(condition)} compares samples, but there is only one")
    if condition.needs_sources:
        raise ConfigurationError(
            f"{described(condition)} reads how sources support an answer, but there are none; an "
            "UncertaintyQueryEngine has them"
        )


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


class _Size(NamedTuple):
    """How large a condition is, and how many clauses its two normal forms have."""

    levels: int = 0
    literals: int = 1
    held: int = 1
    denied: int = 1


def _size(condition: Condition) -> _Size:
    """Return a size without building the normal forms; parts were measured before."""
    if not isinstance(condition, _Composed):
        return _Size()
    parts = [_size(one) for one in condition.parts]
    levels = 1 + max((one.levels for one in parts), default=0)
    literals = sum(one.literals for one in parts)
    held, denied = [one.held for one in parts], [one.denied for one in parts]
    if isinstance(condition, And):
        return _Size(levels, literals, math.prod(held), sum(denied))
    if isinstance(condition, Or):
        return _Size(levels, literals, sum(held), math.prod(denied))
    return _Size(levels, literals, sum(denied), sum(held))


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
