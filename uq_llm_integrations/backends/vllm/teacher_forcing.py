"""Teacher forcing: what the model gives to tokens that are already there.

Behind a prompt that fills a block of the engine's prefix cache, the prompt is computed once, by a
request that also returns the distribution of the first token behind it; then the continuations are
scored behind the cached prompt. The rows of cached tokens are uninitialised memory, so a
continuation whose own rows came from the cache is scored again in a full pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from uq_llm_integrations.backends.base import kept_candidates
from uq_llm_integrations.backends.row_checks import damaged_trace
from uq_llm_integrations.backends.token_statistics import column, read_rows
from uq_llm_integrations.backends.token_texts import named_texts
from uq_llm_integrations.backends.vllm.output import LogprobTable
from uq_llm_integrations.backends.vllm.process import EngineProcess
from uq_llm_integrations.backends.vllm.requests import (
    first_token_params,
    scoring_params,
    tokens_name,
)
from uq_llm_integrations.errors import EngineError
from uq_llm_integrations.records import Candidate, Floats, TokenTrace

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams

Ids = tuple[int, ...]

WHY_INEXACT = "teacher-forced tokens are scored from the top k log-probabilities"


class Scoring:
    """Scores continuations of one prompt, all in one batch."""

    def __init__(
        self, process: EngineProcess, prompt_ids: Ids, k: int, fallback_k: int, deadline: float
    ) -> None:
        self._process, self._prompt_ids = process, prompt_ids
        self._k, self._fallback_k, self._deadline = k, fallback_k, deadline
        self._size = process.llm.model_config.get_vocab_size()
        self._is_exact = False

    async def candidates(self, continuations: Sequence[Ids]) -> list[Candidate]:
        """Return one candidate for each continuation; one that failed has its error."""
        self._is_exact = await self._process.sees_raw()
        if not self._is_exact and self._k != -1:
            self._k = max(self._k, self._fallback_k)  # they bound what the probe would see
        firsts: dict[int, TokenTrace] = {}
        if self._is_cacheable and any(continuations):
            firsts = await self._first_tokens(sorted({ids[0] for ids in continuations if ids}))
        scores = [self._scored(ids, firsts) for ids in continuations]
        outcomes = await asyncio.gather(*scores, return_exceptions=True)
        return kept_candidates(outcomes, self._prompt_ids, self._size)

    async def _scored(self, ids: Ids, firsts: dict[int, TokenTrace]) -> Candidate:
        if not ids:
            nothing = LogprobTable.read(None, ()).trace(self._size, None, WHY_INEXACT)
            return self._candidate((), nothing, 0)
        if ids[0] in firsts:
            return await self._behind_cache(ids, firsts[ids[0]])
        return await self._in_full(ids)

    @property
    def _is_cacheable(self) -> bool:
        cache = self._process.llm.vllm_config.cache_config
        is_long = len(self._prompt_ids) >= (cache.block_size or 0)
        return bool(self._is_exact and cache.enable_prefix_caching and is_long)

    async def _first_tokens(self, ids: list[int]) -> dict[int, TokenTrace]:
        """Return the trace of each token as the first behind the prompt, where the probe saw it."""
        name = self._process.new_id()
        params = first_token_params(name, ids, self._k)
        output = await self._output(self._prompt_ids, params, name)
        rows, tokens = await asyncio.gather(
            self._process.take(name, self._deadline, read_rows),
            self._process.take(tokens_name(name), self._deadline, read_rows),
        )
        if len(rows) < 1 or not np.array_equal(column(tokens, "token"), ids):
            return {}
        completion = output.outputs[0]
        table = LogprobTable.read(completion.logprobs, completion.token_ids)
        trace = table.trace(self._size, rows, None)
        logprobs, ranks = column(tokens, "logprob"), column(tokens, "rank").astype(np.int64)
        return {
            token: replace(trace, logprob=logprobs[i : i + 1], rank=ranks[i : i + 1])
            for i, token in enumerate(ids)
        }

    async def _behind_cache(self, ids: Ids, first: TokenTrace) -> Candidate:
        start = len(self._prompt_ids) + 1
        if len(ids) == 1:
            return self._candidate(ids, first, len(self._prompt_ids))
        output, rows = await self._pass(ids, start, reads_cache=True)
        cached = output.num_cached_tokens or 0
        try:
            if cached >= start:
                raise EngineError("the continuation's own rows were taken from the cache")
            rest = self._trace(output, start, rows)
        except EngineError:
            return await self._in_full(ids)
        return self._candidate(ids, first.joined(rest), cached)

    async def _in_full(self, ids: Ids) -> Candidate:
        start = len(self._prompt_ids)
        output, rows = await self._pass(ids, start, reads_cache=False)
        try:
            trace = self._trace(output, start, rows)
        except EngineError as error:
            trace = damaged_trace(self._size, str(error))
        return self._candidate(ids, trace, 0)

    async def _pass(
        self, ids: Ids, start: int, *, reads_cache: bool
    ) -> tuple[RequestOutput, Floats | None]:
        name = self._process.new_id()
        scored = (name, start) if self._is_exact else None
        params = scoring_params(self._k, scored, reads_cache=reads_cache)
        output = await self._output(self._prompt_ids + ids, params, name)
        if not self._is_exact:
            return output, None
        return output, await self._process.take(name, self._deadline, read_rows)

    async def _output(self, ids: Ids, params: SamplingParams, name: str) -> RequestOutput:
        try:
            outputs = self._process.outputs(list(ids), params, name, self._deadline)
            async for output in outputs:
                last = output
        except BaseException:
            self._process.forget_rows(name, tokens_name(name))
            raise
        return last

    def _trace(self, output: RequestOutput, start: int, rows: Floats | None) -> TokenTrace:
        ids = tuple(output.prompt_token_ids or ())
        table = LogprobTable.read(output.prompt_logprobs, ids, first=start)
        if rows is not None and len(rows) != len(ids) - start:
            raise EngineError(f"the probe saw {len(rows)} of {len(ids) - start} scored tokens")
        return table.trace(self._size, rows, WHY_INEXACT)

    def _candidate(self, ids: Ids, trace: TokenTrace, cached: int) -> Candidate:
        text = "".join(named_texts(self._process.llm.get_tokenizer(), ids))
        return Candidate(self._prompt_ids, ids, text, trace, cached_tokens=cached)
