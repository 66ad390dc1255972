"""Generating the samples of one request token by token, all of a batch at each step."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

import torch

from uq_llm_integrations.backends.base import kept_candidates
from uq_llm_integrations.backends.batching import BatchSize
from uq_llm_integrations.backends.huggingface.forward import forward, last_logits, trace_of
from uq_llm_integrations.backends.huggingface.loading import Description, EndTokens
from uq_llm_integrations.backends.huggingface.token_sampling import HFSampling, Sample
from uq_llm_integrations.errors import EngineError
from uq_llm_integrations.records import Candidate, Request, SampleMonitor, StreamPiece, TokenTrace

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

P = ParamSpec("P")
T = TypeVar("T")

# What transformers calls a cache; the second is that of models that only have a state.
_CACHES = ("past_key_values", "cache_params")


class Work(Protocol):
    """Runs a job on the model's own thread."""

    def __call__(self, job: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Return what the job returns."""


def sample_tokens(
    logits: torch.Tensor, sampling: HFSampling, generators: Sequence[torch.Generator | None]
) -> torch.Tensor:
    """Return one token for each row of float32 logits [rows, V]; penalties are already in them.

    A row with a generator gets the same token whatever the other rows are.
    """
    if sampling.is_greedy:
        return logits.argmax(-1)
    probabilities = filter_logits(logits / sampling.temperature, sampling).softmax(-1)
    # The smallest of exponential variables with these rates belongs to a token with just its
    # probability; unlike torch.multinomial this lets each row have a generator of its own.
    waits = torch.empty_like(probabilities).exponential_()
    for row, generator in enumerate(generators):
        if generator is not None:
            waits[row].exponential_(generator=generator)
    return (probabilities / waits).argmax(-1)


def filter_logits(logits: torch.Tensor, sampling: HFSampling) -> torch.Tensor:
    """Return logits [rows, V] with -inf in place of what min_p, top_k and top_p leave out."""
    if sampling.min_p > 0:
        probabilities = logits.softmax(-1)
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        logits = logits.masked_fill(probabilities < least, -torch.inf)
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, indices = logits.sort(-1, descending=True)
        probabilities = ordered.softmax(-1)
        more_probable = probabilities.cumsum(-1) - probabilities
        left_out = more_probable >= sampling.top_p
        left_out[:, 0] = False
        logits = logits.masked_fill(left_out.scatter(-1, indices, left_out), -torch.inf)
    return logits


def penalize(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Return logits [rows, V] with vLLM's repetition penalty on the tokens marked in `seen`."""
    weaker = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, weaker, logits)


class TokenBatch:
    """Samples of one prompt on the device: they share its pass, and then step side by side."""

    def __init__(
        self,
        model: PreTrainedModel,
        request: Request,
        sampling: HFSampling,
        ends: EndTokens,
        numbers: list[int],
    ) -> None:
        self._model, self._request, self._sampling = model, request, sampling
        self._numbers = numbers
        own_ends = () if sampling.ignore_eos else ends.all
        self._barred = sorted({*sampling.stop_token_ids, *own_ends})
        self._cache: Cache = None  # until the prompt has passed
        self._cache_name = ""
        self._tokens: torch.Tensor | None = None
        self._seen: torch.Tensor | None = None
        self._generators: list[torch.Generator | None] = []
        self._count = 0

    def step(self, kept: list[int]) -> tuple[list[int], TokenTrace]:
        """Sample a token for each row and return them with a trace, row by row.

        `kept` are the indices of the rows that go on; the others are dropped first.
        """
        if self._tokens is None:
            logits = self._first_logits()
        else:
            if len(kept) < len(self._generators):
                self._keep(kept)
            logits = self._next_logits(self._tokens)
        changed = self._changed(logits)
        tokens = sample_tokens(changed, self._sampling, self._generators)
        self._tokens, self._count = tokens, self._count + 1
        if self._seen is not None:
            self._seen.scatter_(1, tokens[:, None], True)
        trace = trace_of(logits, tokens, self._request.top_logprobs)
        return tokens.tolist(), trace

    def _first_logits(self) -> torch.Tensor:
        """Pass the prompt once for all rows."""
        rows, prompt = len(self._numbers), torch.tensor([self._request.prompt_ids])
        logits = self._pass(prompt, **last_logits(self._model, 1)).expand(rows, -1)
        if rows > 1:
            self._cache.reorder_cache(torch.zeros(rows).long())
        self._generators = [self._generator(number, logits.device) for number in self._numbers]
        if self._sampling.repetition_penalty != 1:
            self._seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
            self._seen[:, prompt[0].to(logits.device)] = True
        return logits

    def _next_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return self._pass(tokens[:, None], **{self._cache_name: self._cache})

    def _pass(self, ids: torch.Tensor, **arguments: object) -> torch.Tensor:
        """Return the logits [rows, V] that stand behind the tokens [rows, tokens]."""
        output = forward(self._model, ids, use_cache=True, **arguments)
        kept = [name for name in _CACHES if getattr(output, name, None) is not None]
        if not kept:
            raise EngineError(f"{type(self._model).__name__} keeps no cache to go on from")
        self._cache_name = kept[0]
        self._cache = getattr(output, self._cache_name)
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _keep(self, kept: list[int]) -> None:
        assert self._tokens is not None
        self._generators = [self._generators[row] for row in kept]
        rows = torch.tensor(kept, device=self._tokens.device)
        self._tokens = self._tokens[rows]
        # Unlike batch_select_indices, this is there for layers of every kind.
        self._cache.reorder_cache(rows)
        if self._seen is not None:
            self._seen = self._seen[rows]

    def _changed(self, logits: torch.Tensor) -> torch.Tensor:
        if self._barred and self._count < self._sampling.min_tokens:
            logits = logits.clone()
            logits[:, self._barred] = -torch.inf
        if self._seen is not None:
            logits = penalize(logits, self._seen, self._sampling.repetition_penalty)
        return logits

    def _generator(self, number: int, device: torch.device) -> torch.Generator | None:
        if self._sampling.seed is None:
            return None
        # A sample's seed is counted up from the request's, as the vLLM backend does.
        return torch.Generator(device).manual_seed(self._sampling.seed + number)


class Generation:
    """All samples of one request."""

    def __init__(
        self,
        work: Work,
        model: PreTrainedModel,
        description: Description,
        ends: EndTokens,
        request: Request,
        monitor: SampleMonitor | None = None,
        *,
        one_by_one: bool = False,
    ) -> None:
        self._work, self._model, self._description, self._ends = work, model, description, ends
        self._request, self._one_by_one = request, one_by_one
        self._monitor = monitor or SampleMonitor()
        self._sampling = HFSampling.of(request.sampling)
        self._finished: list[Candidate] = []
        self._is_enough = False

    async def candidates(self) -> list[Candidate]:
        """Return one candidate a sample; one that failed has its error, unless all did."""
        samples: dict[int, Sample] = {}
        waiting = list(range(self._request.n))
        size = BatchSize(1 if self._one_by_one else len(waiting))
        while waiting:
            batch = waiting[: size.size]
            try:
                async for sample in self._run_batch(batch):
                    samples[sample.number] = sample
            except torch.OutOfMemoryError as error:
                size.halve(len(batch), error)
            waiting = [number for number in waiting if number not in samples]
        outcomes = [self._outcome(samples[number]) for number in range(self._request.n)]
        return kept_candidates(
            outcomes, self._request.prompt_ids, self._description.vocabulary_size
        )

    async def pieces(self) -> AsyncGenerator[StreamPiece, None]:
        """Yield the one sample piece by piece."""
        sample = self._sample(0)
        batch, text, count = self._batch([0]), "", 0
        size = self._description.vocabulary_size
        while sample.finish_reason is None:
            try:
                await self._step(batch, [sample], [0])
            except torch.OutOfMemoryError as error:
                BatchSize(1).halve(1, error)
            candidate = self._candidate(sample) if sample.finish_reason else None
            ids, shown = tuple(sample.token_ids[count:]), sample.shown[len(text) :]
            yield StreamPiece(shown, ids, sample.trace_from(count, size), candidate)
            text, count = sample.shown, len(sample.token_ids)

    async def _run_batch(self, numbers: list[int]) -> AsyncGenerator[Sample, None]:
        """Generate samples side by side and yield each as it ends."""
        samples, batch = [self._sample(number) for number in numbers], self._batch(numbers)
        kept = list(range(len(samples)))
        while samples:
            if self._is_enough:
                for sample in samples:
                    sample.abort()
            else:
                await self._step(batch, samples, kept)
            for sample in samples:
                if sample.finish_reason:
                    yield sample
            kept = [i for i, sample in enumerate(samples) if sample.finish_reason is None]
            samples = [samples[i] for i in kept]

    async def _step(self, batch: TokenBatch, samples: list[Sample], kept: list[int]) -> None:
        """Give each sample its next token, and abort those that are needed no longer."""
        tokens, trace = await self._work(batch.step, kept)
        for i, (sample, token) in enumerate(zip(samples, tokens, strict=True)):
            sample.add(token, trace[i : i + 1])
            if sample.finish_reason:
                self._finish(sample)
        hopeless = self._monitor.hopeless
        for sample in samples:
            if sample.finish_reason is None and (
                self._is_enough or (hopeless and hopeless(sample.logprobs, self._finished))
            ):
                sample.abort()

    def _finish(self, sample: Sample) -> None:
        outcome, enough = self._outcome(sample), self._monitor.enough
        if isinstance(outcome, Candidate) and outcome.is_whole:
            self._finished.append(outcome)
            self._is_enough = self._is_enough or bool(enough and enough(self._finished))

    def _batch(self, numbers: list[int]) -> TokenBatch:
        return TokenBatch(self._model, self._request, self._sampling, self._ends, numbers)

    def _sample(self, number: int) -> Sample:
        room = self._sampling.max_tokens
        assert room is not None  # `check_request` has put in what the context leaves
        decode = self._description.text
        return Sample(number, self._request, self._sampling, self._ends, decode, room)

    def _outcome(self, sample: Sample) -> Candidate | EngineError:
        return sample.outcome(self._description.vocabulary_size)

    def _candidate(self, sample: Sample) -> Candidate:
        outcome = self._outcome(sample)
        if isinstance(outcome, EngineError):
            raise outcome
        return outcome
