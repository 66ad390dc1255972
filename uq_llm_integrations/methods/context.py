"""Evidence: what methods need beyond a candidate's trace, gathered once however many await it.

A piece of evidence is an `async def` that takes the `Context` and returns what it has gathered.
`await context.of(evidence)` runs it as a task the first time and returns the same result to all
others; what is independent runs at the same time.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar, cast

from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.tasks import cancel
from uq_llm_integrations.records import Candidate, Inspection, Request

T = TypeVar("T")

Evidence = Callable[["Context"], Coroutine[object, object, T]]


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
        await cancel(list(self._tasks.values()))


async def _decoded_prompt(context: Context) -> str:
    return await context.backend.decode(context.request.prompt_ids)
