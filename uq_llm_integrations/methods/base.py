"""What a method is: its name, its paper, what it needs, how that is gathered, and its formula.

A method of the trace alone has `values`, a formula for one number a token, and `reduce`, which
makes one number of them. One that is made of other methods' scores has `combine`. Any other method
has `gather`, an `async def` that gathers its evidence and returns a value for each candidate. All
are made by a decorator:

    @trace_method("doubts", np.sum, summary="Tokens below one half.", reference="my paper")
    def doubts(trace):
        return np.exp(trace.logprob) < 0.5

    @evidence_method("brevity", summary="How short the answer is.", reference="my paper")
    async def brevity(context):
        return [1 / (1 + len(one.text)) for one in context.candidates]

    register_method(brevity)
"""

import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Required, TypedDict, TypeVarTuple, Unpack

import numpy as np

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.errors import EvidenceError, UncertaintyError, reason
from uq_llm_integrations.methods.context import Context
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Floats, Inspection, Score, TokenTrace

Level = Literal["sequence", "token", "claim"]
Category = Literal["logprob", "sampling", "hidden state", "attention", "prompting", "calibrated"]

Ends = tuple[Floats, Floats]
"""[T] lower and upper ends of what is known of each token's value; equal where it is exact."""

TraceValues = Callable[[TokenTrace], Floats | Ends | None]
"""A formula for one value a token, exact or its ends; None where nothing is known. Higher is more
uncertain."""

Value = float | Floats | Exception
"""A candidate's value: one number, one for each token or claim, or why there is none."""

Gather = Callable[[Context], Coroutine[object, object, Sequence[Value]]]
"""Returns one value for each candidate, in their order; higher is more uncertain."""


Combine = Callable[[Mapping[str, Score], MethodOptions], float | Floats]
"""Makes one value of a candidate's other scores, by the names of their methods."""


class Reduce(Protocol):
    """Makes one number of all tokens'; it must not decrease where a token's value grows."""

    def __call__(self, values: Floats, /) -> float | np.floating:
        """Return the one number of [T] values."""


Row = TypeVarTuple("Row")

Requirement = Callable[[Capabilities, MethodOptions], str | None]
"""Returns what is missing for a method on a backend and with these options, None for nothing."""


@dataclass(frozen=True, eq=False)
class Method:
    """One uncertainty method; higher values are more uncertain, always.

    `summary` is a sentence with the unit, `range` the least and the greatest value, `reference` the
    paper or source. `other_names` are further names that find it, such as lm-polygraph's class.
    `cost` says what a score costs beside the generation of the answer. `inspection` is what it
    needs of the model's inside, and `judged_by` which of the options' judges it rests on.
    """

    name: str
    summary: str
    reference: str
    alias: str | None = None
    other_names: tuple[str, ...] = ()
    category: Category = "logprob"
    level: Level = "sequence"
    range: tuple[float, float] = (-math.inf, math.inf)
    cost: str = "nothing"
    requirements: tuple[Requirement, ...] = ()
    inspection: Callable[[MethodOptions], Inspection | None] | None = None
    judged_by: Literal["entailment", "similarity"] | None = None
    values: TraceValues | None = None
    reduce: Reduce | None = None
    transform: Callable[[float], float] | None = None
    """What is applied to the reduced value, such as exp; it must not decrease anywhere."""
    gather: Gather | None = None
    combine: Combine | None = None

    @property
    def function(self) -> Callable[..., object] | None:
        """What makes the method's values."""
        return self.gather or self.values or self.combine

    @property
    def names(self) -> tuple[str, ...]:
        """All names that find the method, its own first."""
        return (self.name, *((self.alias,) if self.alias else ()), *self.other_names)

    def missing(
        self, capabilities: Capabilities, options: MethodOptions | None = None
    ) -> str | None:
        """Return what the method lacks on a backend, and where it can be had; None for nothing."""
        options = options or MethodOptions()
        found = (requirement(capabilities, options) for requirement in self.requirements)
        return next((words for words in found if words), None)


class MethodFields(TypedDict, total=False):
    """What can be said of a method beside its name and formula."""

    summary: Required[str]
    reference: Required[str]
    alias: str | None
    other_names: tuple[str, ...]
    category: Category
    level: Level
    range: tuple[float, float]
    cost: str
    requirements: tuple[Requirement, ...]
    inspection: Callable[[MethodOptions], Inspection | None]
    judged_by: Literal["entailment", "similarity"]
    transform: Callable[[float], float]


def trace_method(
    name: str, reduce: Reduce | None = np.mean, **fields: Unpack[MethodFields]
) -> Callable[[TraceValues], Method]:
    """Make a method of a formula for [T] values; without `reduce`, it has one value a token."""
    if reduce is None:
        fields["level"] = "token"
    return lambda values: Method(name, values=values, reduce=reduce, **fields)


def evidence_method(name: str, **fields: Unpack[MethodFields]) -> Callable[[Gather], Method]:
    """Make a method of an `async def` that returns one value for each candidate, in their order."""
    return lambda gather: Method(name, gather=gather, **fields)


def combined_method(name: str, **fields: Unpack[MethodFields]) -> Callable[[Combine], Method]:
    """Make a method of a function of other methods' scores of the same candidate."""
    return lambda combine: Method(name, combine=combine, **fields)


def needs_exact_statistics(capabilities: Capabilities, options: MethodOptions) -> str | None:
    """Require that the backend sees whole distributions."""
    if capabilities.why_inexact is None:
        return None
    return f"exact statistics, which {capabilities.model} has not: {capabilities.why_inexact}"


def needs_activations(capabilities: Capabilities, options: MethodOptions) -> str | None:
    """Require hidden states and attention."""
    if (why := capabilities.why_no_activations) is None:
        return None
    return (
        f"hidden states or attention, which cannot be had: {why}; "
        "HuggingFaceBackend and HybridBackend can show them"
    )


def values_of(
    formula: Callable[[*Row], float | Floats], rows: Iterable[tuple[*Row]]
) -> list[Value]:
    """Return the formula's value of each candidate's row, or what it raises, of ours or not."""

    def value(row: tuple[*Row]) -> Value:
        try:
            return formula(*row)
        except UncertaintyError as error:
            return error
        except Exception as error:  # what is degenerate for one candidate costs no other's value
            return EvidenceError(f"the computation failed: {type(error).__name__}: {reason(error)}")

    with np.errstate(all="ignore"):  # a value that is not finite becomes a reason
        return [value(row) for row in rows]
