"""A model of transformers in this process, with its hidden states and attention at hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from copy import copy
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from uq_llm_integrations.backends.base import kept_candidates, layer_numbers
from uq_llm_integrations.backends.batching import in_batches
from uq_llm_integrations.backends.capabilities import (
    MAX_N,
    Capabilities,
    check_limits,
    check_request,
    check_text,
)
from uq_llm_integrations.backends.codec import Tokenizer, TokenizerBackend
from uq_llm_integrations.backends.event_loop import LoopThread, end_own_loop
from uq_llm_integrations.backends.huggingface.loading import ModelOptions
from uq_llm_integrations.backends.huggingface.thread import ModelThread
from uq_llm_integrations.backends.huggingface.token_sampling import HFSampling
from uq_llm_integrations.backends.remote_code import check_remote_code
from uq_llm_integrations.backends.sampling_values import token_ids
from uq_llm_integrations.backends.streams import closed_at_end, stream_of
from uq_llm_integrations.backends.token_texts import named_texts
from uq_llm_integrations.checkpoints import existing_folder, resolve_model
from uq_llm_integrations.errors import (
    ConfigurationError,
    EmptyPromptError,
    InvalidRequestError,
    described,
    suggestion,
)
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Inspection,
    Request,
    SampleMonitor,
    StreamPiece,
    TokenTrace,
)
from uq_llm_integrations.secret_names import sealed
from uq_llm_integrations.secret_values import without_secrets

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from uq_llm_integrations.backends.huggingface.generation import Generation

T = TypeVar("T")

Ids = tuple[int, ...]

_NO_PART = frozenset({"token", "cache_dir", "local_files_only"})
"""Arguments of `from_pretrained` that change no answer."""


class HuggingFaceBackend(TokenizerBackend):
    """Runs a causal language model of transformers, one step of one request at a time.

    `model` is a bundled model's name, a folder, a hub name, or a loaded model, which needs its
    `tokenizer` and stays the caller's. `from_pretrained` are transformers' own arguments;
    `trust_remote_code=True` works only where the environment has `UQ_LLM_ALLOW_REMOTE_CODE=1`. The
    weights are loaded on first use. All of the model's work is done on one thread; the steps of
    requests that run at once take turns there.

    `quantization` is 'int8' or 'int4', by bitsandbytes. `gpu_memory_utilization` is the largest
    share of each CUDA device's memory that this process may take. `expandable_segments` has CUDA
    memory grow in segments; it must come before CUDA is used. `sequential_generation` generates the
    samples of a request one after the other. `empty_cache_after_step` gives CUDA memory back after
    every step. Where memory runs out, a batch is halved up to four times, then it is an
    EngineError.

    A copy shares the loaded model; the last of the copies to be closed drops it. In another process
    a pickled backend loads a model of its own.

    Example:
        with HuggingFaceBackend("smollm2") as backend:
            ids = backend.run(backend.encode("What is the capital of France?", chat=True))
            (candidate,) = backend.run(backend.generate(Request(ids)))
            candidate.trace.entropy  # one for each token, in nats
    """

    def __init__(
        self,
        model: str | PreTrainedModel,
        *,
        dtype: str = "auto",
        device: str | None = None,
        quantization: str | None = None,
        attn_implementation: str | None = None,
        gpu_memory_utilization: float | None = None,
        sequential_generation: bool = False,
        empty_cache_after_step: bool = False,
        expandable_segments: bool = False,
        max_n: int = MAX_N,
        tokenizer: PreTrainedTokenizerBase | str | None = None,
        **from_pretrained: object,
    ) -> None:
        _check_names(from_pretrained)
        check_remote_code(from_pretrained)
        if isinstance(model, str):
            name, path, ready = model, resolve_model(model).path, None
        else:
            loads = [dtype != "auto", device, quantization, attn_implementation, from_pretrained]
            if tokenizer is None or any(loads):
                raise ConfigurationError(
                    "a loaded model takes its tokenizer, and nothing to load it with"
                )
            name = path = str(model.config.name_or_path)
            ready = model
        options = ModelOptions(
            name=name,
            path=path,
            dtype=dtype,
            device=device,
            quantization=quantization,
            attn_implementation=attn_implementation,
            gpu_memory_utilization=gpu_memory_utilization,
            expandable_segments=expandable_segments,
            tokenizer=tokenizer,
            others=sealed(from_pretrained),
        )
        check_limits(max_n)
        self._model = name
        self._max_n, self._one_by_one = max_n, sequential_generation
        self._thread = ModelThread(options, ready, empty_cache_after_step)
        self._thread.join(self)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._thread = copy(self._thread)  # itself, but for a forked child
        self._thread.join(self)

    @property
    def checkpoint(self) -> Path | None:
        """The folder that the weights were loaded from, None where they came from elsewhere."""
        options, ready, _ = self._thread.settings
        return existing_folder(options.path) if ready is None else None

    def _identity(self) -> tuple[object, ...]:
        return *self._thread.settings, self._max_n, self._one_by_one

    def identity_parts(self) -> object:
        """Return what is loaded and how; what it may take of the memory changes no answer."""
        options, ready, _ = self._thread.settings
        arguments = without_secrets(options.others)
        others = {name: one for name, one in arguments.items() if name not in _NO_PART}
        return replace(options, others=others), ready, self._one_by_one

    @property
    def capabilities(self) -> Capabilities:
        """All that a backend can have; sizes are known from the first use on."""
        known = self._thread.description
        return Capabilities(
            model=self._model,
            vocabulary_size=known.vocabulary_size if known else None,
            context_length=known.context_length if known else None,
            max_top_logprobs=-1,
            max_n=self._max_n,
            why_no_activations=None,
        )

    @cached_property
    def loop(self) -> LoopThread:
        """An event loop for blocking callers."""
        return LoopThread()

    def start(self) -> None:
        """Load the model unless it is loaded, blocking; calling this is never needed.

        Raises ModelNotFoundError, MissingDependencyError or EngineStartError.
        """
        self.run(self._loaded())

    def unload(self) -> None:
        """Drop the weights after the step that runs, blocking; the next use loads them again.

        A loaded model that was given stays where it is.
        """
        self._thread.run(self._thread.unload)

    def close(self) -> None:
        """Drop the weights and end the thread, unless copies of this backend still use them.

        Calls that are under way, and all later ones, raise EngineClosedError; a step of the model
        that runs comes to its end first, unless this is called on the backend's own loop.
        """
        super().close()
        loop = vars(self).get("loop")
        self._thread.close(self, waits=loop is None or not loop.is_here)
        end_own_loop(self)

    async def tokenizer(self) -> Tokenizer:
        """Return the model's tokenizer."""
        with self.open_calls.call():
            tokenizer: Tokenizer = (await self._thread.describe()).tokenizer
            return tokenizer

    def check(self, request: Request) -> None:
        """Raise InvalidRequestError for a request that can never work."""
        HFSampling.of(check_request(request, self.capabilities).sampling)

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return `request.n` candidates, generated side by side behind one pass of the prompt."""
        with self.open_calls.call():
            return await (await self._generation(request, monitor)).candidates()

    def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate one candidate piece by piece; the last piece has the candidate."""
        return stream_of(self.open_calls, self._pieces(request))

    async def _pieces(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        if request.n != 1:
            raise InvalidRequestError(f"n is {request.n}; only n=1 can be streamed")
        generation = await self._generation(request)
        async with closed_at_end(generation.pieces()) as pieces:
            async for piece in pieces:
                yield piece

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the exact traces of given tokens behind a prompt (teacher forcing)."""
        from uq_llm_integrations.backends.huggingface.teacher_forcing import scored_candidate

        prompt = tuple(token_ids("the prompt", prompt_ids))
        texts = [tuple(token_ids("a text", ids)) for ids in continuations]
        if not prompt:
            raise EmptyPromptError
        with self.open_calls.call():
            known = await self._thread.describe()
            for ids in texts:
                self.check(Request(prompt + ids, top_logprobs=top_logprobs))
            traces = await self._traces(prompt, texts, top_logprobs)
        outcomes = [
            scored_candidate(prompt, ids, "".join(named_texts(known.tokenizer, ids)), trace)
            for ids, trace in zip(texts, traces, strict=True)
        ]
        return kept_candidates(outcomes, prompt, known.vocabulary_size)

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return the activations at the tokens of each text, from padded forward passes."""
        from uq_llm_integrations.backends.huggingface.inspection import inspect_texts

        with self.open_calls.call():
            known, whole = await self._thread.describe(), [tuple(ids) for ids in texts]
            for ids in whole:
                check_text(ids, known.vocabulary_size, known.context_length)
            layer_numbers(inspection, known.layers)
            return await self._in_batches(whole, inspect_texts, inspection)

    async def _loaded(self) -> None:
        with self.open_calls.call():
            await self._thread.work(self._thread.model)

    async def _generation(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> Generation:
        from uq_llm_integrations.backends.huggingface.generation import Generation

        self.check(request)
        known = await self._thread.describe()
        request = check_request(request, self.capabilities)  # now the sizes are known
        if request.sampling.get("max_tokens") is None:
            raise InvalidRequestError(
                f"max_tokens is None; {self._model} states no length of its context that could "
                "end a sample, so it must be a whole number"
            )
        model, ends = await self._thread.work(self._thread.model)
        return Generation(
            self._thread.work, model, known, ends, request, monitor, one_by_one=self._one_by_one
        )

    async def _traces(self, prompt: Ids, texts: Sequence[Ids], k: int) -> list[TokenTrace]:
        from uq_llm_integrations.backends.huggingface import teacher_forcing

        if len(texts) > 1:
            (prefix,) = await self._in_batches([prompt], teacher_forcing.pass_prompts)
            if prefix:
                beside = len(prompt) // teacher_forcing.CACHED_PER_TOKEN
                return await self._in_batches(texts, prefix.score, k, beside=beside)
        whole = [prompt + ids for ids in texts]
        return await self._in_batches(whole, teacher_forcing.score_texts, len(prompt), k)

    async def _in_batches(
        self,
        texts: Sequence[Ids],
        job: Callable[..., list[T]],
        *arguments: object,
        beside: int = 0,
    ) -> list[T]:
        """Run a job of the model's with batches of texts, each of `beside` tokens more."""
        import torch

        model, _ = await self._thread.work(self._thread.model)

        async def run(batch: list[int]) -> list[T]:
            return await self._thread.work(job, model, [texts[i] for i in batch], *arguments)

        lengths = [len(text) + beside for text in texts]
        return await in_batches(lengths, run, torch.OutOfMemoryError)


def _check_names(from_pretrained: Iterable[str]) -> None:
    """Refuse what is nearly an argument of ours; transformers would keep it without effect."""
    own = signature(HuggingFaceBackend).parameters
    for name in from_pretrained:
        if get_close_matches(name, own, n=1, cutoff=0.8):
            raise ConfigurationError(
                f"HuggingFaceBackend has no argument {described(name)}{suggestion(name, own)}"
            )
