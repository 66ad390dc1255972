"""What methods see of the model's inside: one forward pass of prompt and answer for all of them."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVarTuple

import numpy as np

from uq_llm_integrations.errors import UncertaintyError
from uq_llm_integrations.methods.base import Value
from uq_llm_integrations.methods.context import Context
from uq_llm_integrations.records import Activations, Candidate, Floats, Inspection

Row = TypeVarTuple("Row")

ONE_PASS = "one pass"
"""The cost of a method that reads activations; all such methods share the pass."""


async def activations(context: Context) -> list[Activations]:
    """Return what all requested methods together need of each candidate, from one forward pass."""
    return await forward_pass(context, context.candidates, context.inspection)


async def inspect_candidates(context: Context, own: Inspection) -> list[Activations]:
    """Return at least what one method needs of each candidate.

    Where the forward pass for all methods fails, each is left to its own, so that what one of them
    cannot have is no other's loss.
    """
    if not _covers(context.inspection, own):
        return await forward_pass(context, context.candidates, own)
    try:
        return await context.of(activations)
    except UncertaintyError:
        if _covers(own, context.inspection):
            raise
    return await forward_pass(context, context.candidates, own)


async def forward_pass(
    context: Context, candidates: Sequence[Candidate], inspection: Inspection
) -> list[Activations]:
    """Return what a forward pass shows of each candidate, its prompt's tokens included."""
    texts = [one.prompt_ids + one.token_ids for one in candidates]
    return await context.backend.inspect_all(texts, inspection)


def _covers(joint: Inspection, own: Inspection) -> bool:
    has_attention = own.attention in {None, joint.attention} or joint.attention == "maps"
    return has_attention and set(own.hidden_layers) <= set(joint.hidden_layers)


def values_of(
    formula: Callable[[*Row], float | Floats], rows: Iterable[tuple[*Row]]
) -> list[Value]:
    """Return the formula's value of each candidate's row, or the UncertaintyError it raises."""

    def value(row: tuple[*Row]) -> Value:
        try:
            return formula(*row)
        except UncertaintyError as error:
            return error

    with np.errstate(all="ignore"):  # a value that is not finite becomes a reason
        return [value(row) for row in rows]
