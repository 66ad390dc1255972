"""Evidence: what methods need beyond a candidate's trace, gathered once however many await it.

A piece of evidence is an `async def` that takes the `Context` and returns what it has gathered.
`await context.of(evidence)` runs it as a task the first time and returns the same result to all
others; what is independent runs at the same time.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar, cast

from uq_llm_integrations.backends.event_loop import cancel
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.errors import EvidenceError, UncertaintyError
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Activations, Candidate, Inspection, Request

T = TypeVar("T")

Evidence = Callable[["Context"], Coroutine[object, object, T]]


ONE_PASS = "one pass"
"""The cost of a method that reads activations; all such methods share the pass."""


class Context:
    """The candidates of one prompt, and the evidence that was gathered about them.

    `inspection` is what all requested methods together need of the model's inside, so that one
    forward pass serves them all.

    Example:
        >>> async def lengths(context: Context) -> list[int]:
        ...     return [len(one.text) for one in context.candidates]
        >>> async def mean_length(context: Context) -> float:
        ...     return sum(await context.of(lengths)) / len(context.candidates)
    """

    def __init__(
        self,
        backend: MeteredBackend,
        request: Request,
        candidates: Sequence[Candidate],
        options: MethodOptions | None = None,
        inspection: Inspection | None = None,
    ) -> None:
        self.backend, self.request, self.candidates = backend, request, tuple(candidates)
        self.options, self.inspection = options or MethodOptions(), inspection or Inspection()
        self._tasks: dict[Evidence[object], asyncio.Task[object]] = {}

    async def of(self, evidence: Evidence[T]) -> T:
        """Return a piece of evidence; raise what its gathering raised, to all who await it."""
        task = self._tasks.get(evidence)
        if task is None:
            task = self._tasks[evidence] = asyncio.ensure_future(evidence(self))
        return cast(T, await asyncio.shield(task))

    async def question(self) -> str:
        """Return the prompt's text."""
        if self.request.text:
            return self.request.text
        return await self.of(_decoded_prompt)

    async def close(self) -> None:
        """Cancel what is still being gathered."""
        await cancel(self._tasks.values())


async def _decoded_prompt(context: Context) -> str:
    return await context.backend.decode(context.request.prompt_ids)


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


def refuse_grammar(candidate: Candidate, what: str) -> None:
    """Raise EvidenceError for an answer under a grammar, where `what` cannot be had under it.

    No pass of given tokens knows which of them a grammar allowed, and what such a pass sees is
    another distribution than the one that the answer was sampled from.
    """
    if candidate.trace.grammar:
        raise EvidenceError(
            f"the answer follows a grammar, and {what} cannot be had of the distribution among "
            "the tokens that it allows"
        )


def _covers(joint: Inspection, own: Inspection) -> bool:
    has_attention = own.attention in {None, joint.attention} or joint.attention == "maps"
    return has_attention and set(own.hidden_layers) <= set(joint.hidden_layers)
