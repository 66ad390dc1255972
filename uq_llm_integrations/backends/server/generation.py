"""Sampling for one request: all samples in one request, or each of them as a stream of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from uq_llm_integrations.backends.base import kept_candidates
from uq_llm_integrations.backends.event_loop import cancel
from uq_llm_integrations.backends.sampling_values import sampling_value
from uq_llm_integrations.backends.server.contact import COMPLETIONS, Facts
from uq_llm_integrations.backends.server.fleet import Fleet
from uq_llm_integrations.backends.server.replies import Part, Reader, cached_tokens
from uq_llm_integrations.backends.server.requests import completion_body, top_k
from uq_llm_integrations.backends.server.routing import prefix_key
from uq_llm_integrations.backends.server.samples import Ending, Sample
from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.backends.token_texts import TokenReader
from uq_llm_integrations.errors import (
    EngineDeadError,
    EngineError,
    InvalidRequestError,
    UncertaintyError,
)
from uq_llm_integrations.records import Candidate, Request, SampleMonitor, StreamPiece

T = TypeVar("T")

_LEAST_TEMPERATURE = 1e-5
"""Below it vLLM samples greedily, and refuses to do so more than once in one request."""


class Generation:
    """All samples of one request."""

    def __init__(
        self,
        fleet: Fleet,
        facts: Facts,
        request: Request,
        texts: TokenReader,
        monitor: SampleMonitor | None = None,
    ) -> None:
        self._fleet, self._facts, self._request, self._texts = fleet, facts, request, texts
        self._monitor = monitor or SampleMonitor()
        self._finished: list[Candidate] = []
        self._is_enough = False
        self._key = prefix_key(request.prompt_ids, facts.block_size)
        self._reader = Reader(
            facts,
            request.prompt_ids,
            top_k(request.top_logprobs, facts),
            request.sampling.get("max_tokens"),
            grammar=bool(request.sampling.get("structured_outputs")),
        )

    async def candidates(self) -> list[Candidate]:
        """Return one candidate a sample; one that failed has its error, unless all did."""
        n = self._request.n
        if self._is_watched:
            outcomes = await _gathered([self._candidate(i) for i in range(n)])
        elif n == 1 or not self._is_greedy:
            outcomes = await self._together(n)
        else:
            each = await _gathered([self._together(1, i) for i in range(n)])
            outcomes = [one[0] if isinstance(one, list) else one for one in each]
        return kept_candidates(outcomes, self._request.prompt_ids, self._facts.size)

    @property
    def _is_greedy(self) -> bool:
        temperature = self._request.sampling.get("temperature")
        return temperature is not None and temperature < _LEAST_TEMPERATURE

    @property
    def _is_watched(self) -> bool:
        monitor, request = self._monitor, self._request
        return bool(request.until or request.early_stop or monitor.enough or monitor.hopeless)

    async def _together(self, n: int, index: int = 0) -> list[Candidate | BaseException]:
        """Return samples from one request, which computes the prompt once."""
        if (seed := self._request.sampling.get("seed")) is not None:
            sampling_value("seed", seed + index + n - 1)
        body = completion_body(self._request, self._facts, n=n, index=index)
        answer = await self._fleet.answer(COMPLETIONS, body, self._key)
        parts = self._reader.parts(answer, dict.fromkeys(range(n), 0))
        if sorted(one.index for one in parts) != list(range(n)):
            raise EngineError(f"the server gave {len(parts)} choices of the {n} asked for")
        cached = cached_tokens(answer, len(self._request.prompt_ids))
        return [
            await self._whole(one, cached) for one in sorted(parts, key=lambda part: part.index)
        ]

    async def _whole(self, part: Part, cached: int) -> Candidate | BaseException:
        if part.finish_reason in (None, "error"):
            return EngineError("the server ended a sample without finishing it")
        sample = Sample(self._request, self._facts, self._texts)
        sample.add(part)
        ending = Ending(part.finish_reason, len(part.token_ids), is_own=True)
        return await sample.candidate(ending, cached)

    async def _candidate(self, index: int) -> Candidate:
        pieces = self._pieces(index)
        async with closed_at_end(pieces) as found:
            async for piece in found:
                if piece.candidate is not None:
                    self._note(piece.candidate)
                    return piece.candidate
        raise EngineDeadError("the server ended a stream without finishing it")

    async def pieces(self) -> AsyncGenerator[StreamPiece, None]:
        """Yield the one sample piece by piece."""
        if self._request.n != 1:
            raise InvalidRequestError(f"n is {self._request.n}; only n=1 can be streamed")
        async with closed_at_end(self._pieces(0)) as found:
            async for piece in found:
                yield piece

    async def _pieces(self, index: int) -> AsyncGenerator[StreamPiece, None]:
        """Yield the pieces of a sample; the last one has it as a whole, and ends the stream."""
        body = completion_body(self._request, self._facts, n=1, index=index, stream=True)
        sample = Sample(self._request, self._facts, self._texts)
        events = self._fleet.events(COMPLETIONS, body, self._key)
        async with closed_at_end(events) as found:
            async for event in found:
                for part in self._reader.parts(event, {0: len(sample.token_ids)}):
                    sample.add(part)
                    ending = await self._ending(sample, part)
                    if ending is not None:
                        cached = await self._cached(found) if ending.is_own else 0
                        yield sample.last_piece(await sample.candidate(ending, cached))
                        return
                    yield sample.piece()
        raise EngineDeadError(
            f"the server ended a stream after {len(sample.token_ids)} tokens without finishing it"
        )

    async def _ending(self, sample: Sample, part: Part) -> Ending | None:
        if early := await sample.early_ending():
            return early
        if part.finish_reason == "error":
            raise EngineError("the server ended a sample with an error")
        if part.finish_reason:
            return Ending(part.finish_reason, len(sample.token_ids), is_own=True)
        hopeless = self._monitor.hopeless
        if self._is_enough or (hopeless and hopeless(sample.logprobs, self._finished)):
            return Ending("abort", len(sample.token_ids))
        return None

    async def _cached(self, events: AsyncIterator[Mapping[str, Any]]) -> int:
        """Return what the events behind the last token say of the cache; the answer is whole."""
        cached = 0
        with suppress(UncertaintyError):
            async for event in events:
                cached = cached_tokens(event, len(self._request.prompt_ids)) or cached
        return cached

    def _note(self, candidate: Candidate) -> None:
        if candidate.is_whole:
            self._finished.append(candidate)
            enough = self._monitor.enough
            self._is_enough = self._is_enough or bool(enough and enough(self._finished))


async def _gathered(runs: Sequence[Coroutine[object, object, T]]) -> list[T | BaseException]:
    """Return what each of some has come to, or its error; where this is cancelled, all are."""
    tasks = [asyncio.ensure_future(one) for one in runs]
    try:
        return await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await cancel(tasks)
