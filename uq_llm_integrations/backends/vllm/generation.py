"""Sampling for one request: each sample is an engine request of its own, ended on its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from uq_llm_integrations.backends.base import kept_candidates
from uq_llm_integrations.backends.row_checks import damaged_trace
from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.backends.token_statistics import read_rows
from uq_llm_integrations.backends.token_texts import split_text, text_decoder
from uq_llm_integrations.backends.vllm.client_compat import detokenize, token_logprobs, tokenizer_of
from uq_llm_integrations.backends.vllm.output import LogprobTable, candidate_of
from uq_llm_integrations.backends.vllm.process import EngineProcess, translated_errors
from uq_llm_integrations.backends.vllm.requests import (
    early_stop_token,
    generation_params,
    why_not_observed,
)
from uq_llm_integrations.backends.vllm.worker.protocol import PEEK
from uq_llm_integrations.errors import EngineError, InvalidRequestError
from uq_llm_integrations.records import Candidate, Request, SampleMonitor, StreamPiece, TokenTrace

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams


class SampleStream(AbstractAsyncContextManager["SampleStream"]):
    """One sample within the engine. Leaving its context makes the probe forget it."""

    def __init__(
        self,
        process: EngineProcess,
        request: Request,
        index: int,
        deadline: float,
        fallback_k: int,
    ) -> None:
        self._process, self._request, self._index = process, request, index
        self._deadline, self._fallback_k = deadline, fallback_k
        self._name = process.new_id()
        self._is_kept = False
        self._why_not: str | None = None
        self._params: SamplingParams

    async def outputs(self, *, whole: bool) -> AsyncGenerator[RequestOutput, None]:
        """Yield the engine's outputs: only the last one, or one a step."""
        process, request = self._process, self._request
        self._why_not = await _why_not_observed(process, request)
        self._is_kept = self._why_not is None
        with translated_errors():
            self._params = generation_params(
                request,
                self._index,
                observed_as=self._name if self._is_kept else None,
                keeps_tokens=whole and self._is_kept and await process.sees_raw(),
                stop_token=early_stop_token(process.llm, request),
                fallback_k=self._fallback_k,
                whole=whole,
            )
        ids = list(request.prompt_ids)
        outputs = process.outputs(ids, self._params, self._name, self._deadline)
        async with closed_at_end(outputs) as found:
            async for output in found:
                yield output

    async def trace_from(self, first: int, output: RequestOutput) -> TokenTrace:
        """Return the trace so far of the tokens from `first` on.

        Their exact statistics are fetched only for a live request.
        """
        completion, size = output.outputs[0], self._process.llm.model_config.get_vocab_size()
        try:
            table = LogprobTable.read(completion.logprobs, tuple(completion.token_ids), first)
        except EngineError as error:  # the text is as good as any
            return damaged_trace(size, str(error))
        rows, why = None, self._why_not or "the probe's statistics come with the last piece"
        if self._is_kept and self._request.live and not output.finished:
            data = await self._process.call_worker(PEEK, self._name, first, deadline=self._deadline)
            rows = read_rows(data)
            rows = rows if len(rows) >= len(table.logprob) else None
        return table.trace(size, rows, why, grammar=self._has_grammar)

    async def candidate(self, output: RequestOutput, reason: str | None = None) -> Candidate:
        """Return what was sampled, with what the probe kept of it.

        `reason` says why it ends here, where the engine has not ended it.
        """
        if not output.finished:
            await self._process.llm.abort(self._name)
        rows = None
        if self._is_kept:
            rows = await self._process.take(self._name, self._deadline, read_rows)
            self._is_kept = False
        return candidate_of(
            output,
            self._process.llm.model_config.get_vocab_size(),
            rows,
            self._why_not,
            text=self._text(output),
            grammar=self._has_grammar,
            reason=reason,
        )

    @property
    def _has_grammar(self) -> bool:
        return self._params.structured_outputs is not None

    def _text(self, output: RequestOutput) -> str | None:
        if self._params.detokenize:
            return None
        return detokenize(output, self._params, tokenizer_of(self._process.llm))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_kept:
            self._process.forget_rows(self._name)


class Generation:
    """All samples of one request, side by side."""

    def __init__(
        self,
        process: EngineProcess,
        request: Request,
        deadline: float,
        fallback_k: int,
        monitor: SampleMonitor | None = None,
    ) -> None:
        self._process, self._request = process, request
        self._deadline, self._fallback_k = deadline, fallback_k
        self._monitor = monitor or SampleMonitor()
        self._finished: list[Candidate] = []
        self._is_enough = False

    async def candidates(self) -> list[Candidate]:
        """Return one candidate a sample; one that failed has its error, unless all did."""
        tasks = [asyncio.ensure_future(self._candidate(i)) for i in range(self._request.n)]
        try:
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
        size = self._process.llm.model_config.get_vocab_size()
        return kept_candidates(outcomes, self._request.prompt_ids, size)

    async def pieces(self) -> AsyncGenerator[StreamPiece, None]:
        """Yield the one sample piece by piece."""
        if self._request.n != 1:
            raise InvalidRequestError(f"n is {self._request.n}; only n=1 can be streamed")
        text, count = "", 0
        async with self._stream(0) as sample, closed_at_end(sample.outputs(whole=False)) as outputs:
            async for output in outputs:
                # The engine appends to its lists later on: take what is new before yielding.
                ids, whole, is_last = _tokens(output), output.outputs[0].text, False
                trace = await sample.trace_from(count, output)
                candidate = await self._ended(sample, output, count)
                if candidate is not None:
                    ids, whole, is_last = candidate.token_ids, candidate.text, True
                    trace = candidate.trace[count:]
                yield StreamPiece(whole[len(text) :], ids[count:], trace, candidate)
                text, count = whole, len(ids)
                if is_last:
                    return

    def _stream(self, index: int) -> SampleStream:
        return SampleStream(self._process, self._request, index, self._deadline, self._fallback_k)

    async def _candidate(self, index: int) -> Candidate:
        seen, whole = 0, not self._is_monitored
        async with (
            self._stream(index) as sample,
            closed_at_end(sample.outputs(whole=whole)) as outputs,
        ):
            async for output in outputs:
                candidate = await self._ended(sample, output, seen)
                if candidate is not None:
                    self._note(candidate)
                    return candidate
                seen = len(output.outputs[0].token_ids)
        raise EngineError("the engine ended a request without finishing it")

    @property
    def _is_monitored(self) -> bool:
        monitor = self._monitor
        return bool(self._request.until or monitor.enough or monitor.hopeless)

    async def _ended(
        self, sample: SampleStream, output: RequestOutput, seen: int
    ) -> Candidate | None:
        """Return the candidate where this output is its last; `seen` tokens hold no boundary."""
        tokens = self._boundary(output, seen)
        if tokens is not None:
            whole = await sample.candidate(output, "boundary")
            return _cut(whole, tokens, self._texts(whole.token_ids))
        if output.finished:
            return await sample.candidate(output)
        if self._is_aborted(output):
            return await sample.candidate(output, "abort")
        return None

    def _boundary(self, output: RequestOutput, seen: int) -> int | None:
        """Return how many tokens there are up to the boundary, None where it was not reached."""
        until = self._request.until
        if until is None or not until(output.outputs[0].text):
            return None
        texts = self._texts(_tokens(output))
        for tokens in range(seen + 1, len(texts)):
            if until("".join(texts[:tokens])):
                return tokens
        return len(texts)

    def _texts(self, token_ids: tuple[int, ...]) -> list[str]:
        is_skipped = self._request.sampling.get("skip_special_tokens") is not False
        tokenizer = self._process.llm.get_tokenizer()
        decode = text_decoder(tokenizer, skip_special_tokens=is_skipped)
        return split_text(decode, token_ids, self._request.prompt_ids)

    def _is_aborted(self, output: RequestOutput) -> bool:
        hopeless, flat = self._monitor.hopeless, output.outputs[0].logprobs
        return self._is_enough or bool(hopeless and hopeless(token_logprobs(flat), self._finished))

    def _note(self, candidate: Candidate) -> None:
        if candidate.is_whole:
            self._finished.append(candidate)
            enough = self._monitor.enough
            self._is_enough = self._is_enough or bool(enough and enough(self._finished))


def _tokens(output: RequestOutput) -> tuple[int, ...]:
    return tuple(output.outputs[0].token_ids)


def _cut(candidate: Candidate, tokens: int, texts: list[str]) -> Candidate:
    return replace(
        candidate,
        token_ids=candidate.token_ids[:tokens],
        text="".join(texts[:tokens]),
        trace=candidate.trace[:tokens],
    )


async def _why_not_observed(process: EngineProcess, request: Request) -> str | None:
    why_not = process.why_no_probe
    if not why_not and not await process.sees_raw():
        v2 = process.llm.vllm_config.use_v2_model_runner
        why_not = why_not_observed(request, use_v2_model_runner=v2)
    if why_not and request.early_stop:
        raise InvalidRequestError(f"an early stop needs the probe: {why_not}")
    return why_not
