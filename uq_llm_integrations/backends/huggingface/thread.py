"""The thread on which all of a transformers model's work is done, and what is loaded there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from uq_llm_integrations.backends.base import Shared
from uq_llm_integrations.backends.event_loop import check_process
from uq_llm_integrations.backends.huggingface.loading import (
    Description,
    EndTokens,
    ModelOptions,
    end_tokens,
    free_memory,
    load_weights,
)
from uq_llm_integrations.backends.work_thread import WorkThread
from uq_llm_integrations.errors import EngineClosedError
from uq_llm_integrations.identity import Itself

if TYPE_CHECKING:
    from transformers import PreTrainedModel

P = ParamSpec("P")
T = TypeVar("T")


class ModelThread(Shared):
    """Holds a model and does jobs with it, one at a time, for a backend and its copies.

    `ready` is a model that the caller has loaded; it is never dropped here. `empties_cache` gives
    CUDA memory back after each job. A forked child has no such thread: there, any job of a thread
    that was used before raises EngineError.
    """

    def __init__(
        self, options: ModelOptions, ready: PreTrainedModel | None, empties_cache: bool
    ) -> None:
        super().__init__(options, ready, empties_cache)
        self.options, self.ready, self._empties_cache = options, ready, empties_cache
        self._worker = WorkThread("uq-llm-model")
        self._used_in: int | None = None
        self._is_closed = False
        self._weights: PreTrainedModel | None = None
        self.description: Description | None = None
        """What is known without the weights, from the first use on."""

    @property
    def settings(self) -> tuple[ModelOptions, object, bool]:
        """What makes two of them the same."""
        return self.options, self.ready and Itself(self.ready), self._empties_cache

    async def work(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a job. Cancelling leaves a job that runs to its end, and stops no other's."""
        return await asyncio.wrap_future(self._submit(job, *args, **kwargs))

    def run(self, job: Callable[[], T]) -> T:
        """Run a job, blocking."""
        return self._submit(job).result()

    async def describe(self) -> Description:
        """Return tokenizer and sizes, read on first use."""
        known = self.description
        return known if known is not None else await self.work(self._describe)

    def model(self) -> tuple[PreTrainedModel, EndTokens]:
        """Return the model and what ends its texts, loaded on first use. A job."""
        known = self._describe()
        if self._weights is None:
            self._weights = self.ready or load_weights(self.options)
        return self._weights, end_tokens(self._weights, known)

    def unload(self) -> None:
        """Drop the weights, unless they are the caller's. A job."""
        if self._weights is not None:
            self._weights = None
            free_memory()

    def close(self, user: object, *, waits: bool = True) -> None:
        """Once the last user closes it, drop the weights and end the thread after what runs."""
        if not self.leave(user) or self._is_closed:
            return
        self._is_closed = True
        if self._used_in == os.getpid():
            self._worker.submit(self.unload)
            self._worker.stop(None if waits else 0)

    def _submit(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        if self._is_closed:
            raise EngineClosedError(f"the backend of {self.options.name} is closed")
        self._used_in = self._used_in or os.getpid()
        check_process(self._used_in)
        return self._worker.submit(partial(self._do, partial(job, *args, **kwargs)))

    def _describe(self) -> Description:
        if self.description is None:
            self.description = Description.read(self.options, self.ready)
        return self.description

    def _do(self, job: Callable[[], T]) -> T:
        try:
            return job()
        finally:
            if self._empties_cache:
                free_memory()
