"""A model of transformers in this process, with all that is inside it at hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from uq_llm_integrations.backends.base import (
    MAX_N,
    Backend,
    Capabilities,
    kept_candidates,
    layer_number,
)
from uq_llm_integrations.backends.codec import encoded_chat, encoded_prompt
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.huggingface.batches import in_batches
from uq_llm_integrations.backends.huggingface.loading import ModelOptions
from uq_llm_integrations.backends.huggingface.sampling import HFSampling
from uq_llm_integrations.backends.huggingface.thread import ModelThread
from uq_llm_integrations.backends.sampling_params import check_request
from uq_llm_integrations.backends.token_texts import split_text
from uq_llm_integrations.checkpoints import resolve_model
from uq_llm_integrations.errors import (
    ConfigurationError,
    EmptyPromptError,
    EngineError,
    InvalidRequestError,
)
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Conversation,
    Inspection,
    Request,
    SampleMonitor,
    StreamPiece,
    TokenTrace,
)

if TYPE_CHECKING:
    from uq_llm_integrations.backends.huggingface.generation import Drawing

T = TypeVar("T")

Ids = tuple[int, ...]


class HuggingFaceBackend(Backend):
    """Runs a causal language model of transformers, one step of one request at a time.

    `model` is a bundled model's name, a folder, a hub name, or a loaded model, which needs its
    `tokenizer` and stays the caller's. `from_pretrained` are transformers' own arguments. The
    weights are loaded on first use. All of the model's work is done on one thread; the steps of
    requests that run at once take turns there.

    `quantization` is 'int8' or 'int4', by bitsandbytes. `gpu_memory_utilization` is the largest
    share of each CUDA device's memory that this process may take. `expandable_segments` has CUDA
    memory grow in segments; it must come before CUDA is used. `sequential_generation` draws the
    samples of a request one after the other. `empty_cache_after_step` gives CUDA memory back after
    every step. Where memory runs out, a batch is halved up to four times, then it is an
    EngineError.
    """

    def __init__(
        self,
        model: Any,
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
        tokenizer: Any = None,
        **from_pretrained: Any,
    ) -> None:
        ready, path, prepare = None, "", _nothing
        if isinstance(model, str):
            source = resolve_model(model)
            path, prepare = source.path, source.prepare
        else:
            loads = [dtype != "auto", device, quantization, attn_implementation, from_pretrained]
            if tokenizer is None or any(loads):
                raise ConfigurationError(
                    "a loaded model takes its tokenizer, and nothing to load it with"
                )
            ready, path = model, str(model.config.name_or_path)
        options = ModelOptions(
            path=path,
            dtype=dtype,
            device=device,
            quantization=quantization,
            attn_implementation=attn_implementation,
            gpu_memory_utilization=gpu_memory_utilization,
            expandable_segments=expandable_segments,
            tokenizer=tokenizer,
            others=from_pretrained,
        )
        self._name = model if isinstance(model, str) else path
        self._max_n, self._one_by_one = max_n, sequential_generation
        self._thread = ModelThread(options, prepare, ready, empties_cache=empty_cache_after_step)

    @property
    def capabilities(self) -> Capabilities:
        """All that a backend can have; sizes are known from the first use on."""
        known = self._thread.description
        return Capabilities(
            model=self._name,
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
        self._thread.run(self._thread.model)

    def unload(self) -> None:
        """Drop the weights after the step that runs, blocking; the next use loads them again.

        A loaded model that was given stays where it is.
        """
        self._thread.run(self._thread.unload)

    def close(self) -> None:
        """Drop the weights and end the thread; the backend is of no use afterwards."""
        self._thread.close()

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template."""
        tokenizer = (await self._thread.describe()).tokenizer
        return encoded_prompt(tokenizer, text, chat=chat, model=self._name)

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation up to where the model's next turn begins."""
        return encoded_chat(await self.tokenizer(), conversation, model=self._name)

    async def tokenizer(self) -> Any:
        """Return the model's tokenizer."""
        return (await self._thread.describe()).tokenizer

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text that follows other text."""
        tokenizer = (await self._thread.describe()).tokenizer
        return tuple(tokenizer.encode(text, add_special_tokens=False))

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return (await self._thread.describe()).text(list(token_ids))

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""
        return split_text((await self._thread.describe()).tokenizer.decode, token_ids)

    def check(self, request: Request) -> None:
        """Raise InvalidRequestError for a request that can never work."""
        check_request(request, self.capabilities)
        HFSampling.of(request.sampling)
        self._check_ids(request.prompt_ids)

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return `request.n` candidates, drawn side by side behind one pass of the prompt."""
        return await (await self._drawing(request, monitor)).candidates()

    async def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate one candidate piece by piece; the last piece has the candidate."""
        if request.n != 1:
            raise InvalidRequestError(f"n is {request.n}; only n=1 can be streamed")
        drawing = await self._drawing(request)
        async with aclosing(drawing.pieces()) as pieces:
            async for piece in pieces:
                yield piece

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the exact traces of given tokens behind a prompt (teacher forcing)."""
        prompt, texts = tuple(prompt_ids), [tuple(ids) for ids in continuations]
        if not prompt:
            raise EmptyPromptError
        known = await self._thread.describe()
        for ids in texts:
            self.check(Request(prompt + ids, top_logprobs=top_logprobs))
        traces = await self._traces(prompt, texts, top_logprobs)
        outcomes = [
            _scored(prompt, ids, known.tokenizer.decode(list(ids)), trace)
            for ids, trace in zip(texts, traces, strict=True)
        ]
        return kept_candidates(outcomes, prompt, known.vocabulary_size)

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return what is inside the model while the tokens of each text pass through it."""
        from uq_llm_integrations.backends.huggingface.forward import inspected

        known, whole = await self._thread.describe(), [tuple(ids) for ids in texts]
        for ids in whole:
            self._check_text(ids)
        _check_inspection(inspection, known.layers)
        return await self._in_batches(whole, inspected, inspection)

    async def _drawing(self, request: Request, monitor: SampleMonitor | None = None) -> Drawing:
        from uq_llm_integrations.backends.huggingface.generation import Drawing

        self.check(request)
        known = await self._thread.describe()
        self.check(request)  # now the sizes are known
        model, ends = await self._thread.work(self._thread.model)
        return Drawing(
            self._thread.work, model, known, ends, request, monitor, one_by_one=self._one_by_one
        )

    async def _traces(self, prompt: Ids, texts: Sequence[Ids], k: int) -> list[TokenTrace]:
        from uq_llm_integrations.backends.huggingface import teacher_forcing

        if len(texts) > 1:
            (kept,) = await self._in_batches([prompt], teacher_forcing.passed)
            if kept:
                beside = len(prompt) // teacher_forcing.CACHED_PER_TOKEN
                return await self._in_batches(texts, kept.scored, k, beside=beside)
        whole = [prompt + ids for ids in texts]
        return await self._in_batches(whole, teacher_forcing.scored, len(prompt), k)

    async def _in_batches(
        self, texts: Sequence[Ids], job: Callable[..., list[T]], *arguments: Any, beside: int = 0
    ) -> list[T]:
        """Run a job of the model's with batches of texts, and with what it needs beside them.

        `beside` is how many tokens more each text counts for.
        """
        import torch

        model, _ = await self._thread.work(self._thread.model)

        async def run(batch: list[int]) -> list[T]:
            return await self._thread.work(job, model, [texts[i] for i in batch], *arguments)

        lengths = [len(text) + beside for text in texts]
        return await in_batches(lengths, run, torch.OutOfMemoryError)

    def _check_ids(self, token_ids: Sequence[int]) -> None:
        """Raise InvalidRequestError for a token that the model has no place for."""
        size = self.capabilities.vocabulary_size
        if size is not None and not all(0 <= token < size for token in token_ids):
            wrong = next(token for token in token_ids if not 0 <= token < size)
            raise InvalidRequestError(f"there is no token {wrong}; allowed are 0 to {size - 1}")

    def _check_text(self, token_ids: Ids) -> None:
        length, context = len(token_ids), self.capabilities.context_length
        if not length:
            raise EmptyPromptError
        if context is not None and length > context:
            raise InvalidRequestError(
                f"a text has {length} tokens; at most {context} fit into the context"
            )
        self._check_ids(token_ids)


def _nothing() -> None:
    """Prepare a model that needs no preparing."""


def _check_inspection(inspection: Inspection, layers: int) -> None:
    for layer in inspection.hidden_layers:
        layer_number(layer, layers)
    if inspection.attention not in (None, "bands", "maps"):
        raise InvalidRequestError(
            f"attention is {inspection.attention!r}; allowed are None, 'bands' and 'maps'"
        )


def _scored(prompt: Ids, ids: Ids, text: str, trace: TokenTrace) -> Candidate | EngineError:
    if np.isnan(trace.logprob).any():
        return EngineError("the model's logits are not numbers; a wider dtype may help")
    return Candidate(prompt, ids, text, trace)
