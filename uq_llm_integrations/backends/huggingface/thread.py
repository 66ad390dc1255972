"""The thread on which all of a transformers model's work is done, and what is loaded there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from uq_llm_integrations.backends.huggingface.loading import (
    Description,
    Ends,
    ModelOptions,
    ends_of,
    free_memory,
    load_weights,
)

T = TypeVar("T")


class ModelThread:
    """Holds a model and does jobs with it, one at a time.

    `prepare` is called before anything is loaded. `ready` is a model that the caller has loaded;
    it is never dropped here. `empties_cache` gives CUDA memory back after each job.
    """

    def __init__(
        self,
        options: ModelOptions,
        prepare: Callable[[], None],
        ready: Any = None,
        *,
        empties_cache: bool = False,
    ) -> None:
        self._options, self._prepare, self._ready = options, prepare, ready
        self._empties_cache = empties_cache
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="uq-llm-model")
        self._weights: Any = None
        self.description: Description | None = None
        """What is known without the weights, once anything was asked for."""

    async def work(self, job: Callable[..., T], /, *arguments: Any) -> T:
        """Run a job. Cancelling leaves a job that runs to its end, and stops no other's."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(self._do, job, *arguments))

    def run(self, job: Callable[[], T]) -> T:
        """Run a job, blocking."""
        return self._executor.submit(job).result()

    async def describe(self) -> Description:
        """Return tokenizer and sizes, read on first use."""
        known = self.description
        return known if known is not None else await self.work(self._described)

    def model(self) -> tuple[Any, Ends]:
        """Return the model and what ends its texts, loaded on first use. A job."""
        known = self._described()
        if self._weights is None:
            self._weights = self._ready or load_weights(self._options)
        return self._weights, ends_of(self._weights, known)

    def unload(self) -> None:
        """Drop the weights, unless they are the caller's. A job."""
        if self._weights is not None:
            self._weights = None
            free_memory()

    def close(self) -> None:
        """Drop the weights and end the thread, once what runs is done."""
        self.run(self.unload)
        self._executor.shutdown()

    def _described(self) -> Description:
        if self.description is None:
            self._prepare()
            self.description = Description.read(self._options, self._ready)
        return self.description

    def _do(self, job: Callable[..., T], *arguments: Any) -> T:
        try:
            return job(*arguments)
        finally:
            if self._empties_cache:
                free_memory()
