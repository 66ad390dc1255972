"""The embedded engine: vLLM inside this program, with exact statistics of every token."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from uq_llm_integrations.backends.base import MAX_N, Backend, Capabilities
from uq_llm_integrations.backends.codec import encoded_chat, encoded_prompt, split_text
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.sampling_params import check_request
from uq_llm_integrations.backends.vllm.generation import Drawing
from uq_llm_integrations.backends.vllm.inspection import Looking, why_no_activations
from uq_llm_integrations.backends.vllm.launch import check_engine_arguments
from uq_llm_integrations.backends.vllm.params import check_seed
from uq_llm_integrations.backends.vllm.process import POOL, EngineProcess, adopt
from uq_llm_integrations.backends.vllm.teacher_forcing import Scoring
from uq_llm_integrations.checkpoints import resolve_model
from uq_llm_integrations.errors import ConfigurationError, EmptyPromptError
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Conversation,
    Inspection,
    Request,
    SampleMonitor,
    StreamPiece,
)

DEFAULT_MAX_LOGPROBS = 20
"""vLLM's own default for the largest k."""

# Argument names that need no look into vLLM, so that constructing a backend does not import it.
COMMON_ARGUMENTS = frozenset(
    {
        "gpu_memory_utilization",
        "tensor_parallel_size",
        "pipeline_parallel_size",
        "enable_prefix_caching",
        "dtype",
        "quantization",
        "max_model_len",
        "max_num_seqs",
        "enforce_eager",
        "trust_remote_code",
        "seed",
        "revision",
        "max_logprobs",
        "kv_cache_memory_bytes",
        "tokenizer",
        "download_dir",
    }
)


class VLLMEngineBackend(Backend):
    """Runs a model on vLLM in processes of its own.

    `model` is a bundled model's name, a folder or a hub name; `engine_args` are vLLM's own engine
    arguments. The engine starts on first use, and backends with the same arguments share one. Where
    it has died, the next call starts a fresh one.
    Instead of a name, `engine` takes a running `AsyncLLM`, which stays the caller's to shut down.

    `max_n` caps how many candidates one request may ask for. `deadline` is how many seconds the
    engine may go without a sign of life before everyone who waits gets an EngineTimeoutError.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        engine: Any = None,
        max_n: int = MAX_N,
        deadline: float = 120.0,
        **engine_args: Any,
    ) -> None:
        if (model is None) == (engine is None):
            raise ConfigurationError("give either a model's name or a ready engine")
        if engine is not None and engine_args:
            raise ConfigurationError(f"a ready engine takes no engine arguments: {engine_args}")
        self._max_n, self._deadline = max_n, deadline
        self._arguments: dict[str, Any] = {}
        self._process: EngineProcess | None = None
        self._starting = threading.Lock()
        self._release: weakref.finalize[Any, Any] | None = None
        if engine is not None:
            self._process = adopt(engine)
        elif model is not None:
            source = resolve_model(model)
            self._prepare = source.prepare
            self._arguments = {**source.engine_args(), **engine_args}
            if not engine_args.keys() <= COMMON_ARGUMENTS:
                check_engine_arguments(engine_args)
        self._model = model or str(engine.model_config.model)

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can serve; sizes are known once the engine runs."""
        process = self._process
        config = process.llm.model_config if process else None
        return Capabilities(
            model=self._model,
            vocabulary_size=config.get_vocab_size() if config else None,
            context_length=config.max_model_len if config else None,
            max_top_logprobs=(
                config.max_logprobs
                if config
                else self._arguments.get("max_logprobs", DEFAULT_MAX_LOGPROBS)
            ),
            max_n=self._max_n,
            why_inexact=process.why_no_probe if process else None,
            why_no_activations=why_no_activations(self._arguments, process),
        )

    @property
    def loop(self) -> LoopThread:
        """The engine's event loop; asking for it starts the engine."""
        return self.start().loop

    def start(self) -> EngineProcess:
        """Start the engine unless it runs, blocking; calling this is never needed."""
        with self._starting:
            dead = self._release if self._process is not None and self._process.is_dead else None
            if self._process is None or dead:
                self._prepare()
                self._process = POOL.acquire(self._arguments)
                self._release = weakref.finalize(self, POOL.release, self._process)
            if dead:
                dead()  # only now: the next engine has taken over its loop
            return self._process

    def close(self) -> None:
        """Give the engine back; the last backend that shares it ends its processes."""
        if self._release:
            self._release()
            self._process = self._release = None

    async def sleep(self) -> None:
        """Give back the memory of the weights and the cache, until `wake`.

        With vLLM's sleep mode the engine stays; without, as on the CPU, its processes end.
        """
        process = self._process
        if process is None:
            return
        if process.can_sleep:
            await process.loop.arun(process.llm.sleep(level=1))
        elif self._release is None:
            raise ConfigurationError("a ready engine without sleep mode cannot sleep")
        else:
            await asyncio.to_thread(self.close)

    async def wake(self) -> None:
        """Take the memory again; where the engine has ended, a new one starts."""
        process = await asyncio.to_thread(self.start)
        if process.can_sleep:
            await process.loop.arun(process.llm.wake_up())

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template."""
        return encoded_prompt(await self.tokenizer(), text, chat=chat, model=self._model)

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation up to where the model's next turn begins."""
        return encoded_chat(await self.tokenizer(), conversation, model=self._model)

    async def tokenizer(self) -> Any:
        """Return the engine's tokenizer."""
        return (await self._running()).llm.get_tokenizer()

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text that follows other text."""
        return tuple((await self.tokenizer()).encode(text, add_special_tokens=False))

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        text: str = (await self.tokenizer()).decode(list(token_ids), skip_special_tokens=True)
        return text

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""
        return split_text((await self.tokenizer()).decode, token_ids)

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return `request.n` candidates, drawn as so many requests that share the prompt."""
        process = await self._started(request)
        return await process.loop.arun(self._drawing(process, request, monitor).candidates())

    async def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate one candidate piece by piece; the last piece has the scored candidate."""
        process = await self._started(request)
        drawing = self._drawing(process, request)
        async with aclosing(process.loop.aiterate(drawing.pieces())) as pieces:
            async for piece in pieces:
                yield piece

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the traces of given tokens behind a prompt, by `prompt_logprobs`.

        Where the probe cannot see them, the top k bound their entropies, and k is at least 20 or
        what the engine allows.
        """
        prompt, texts = tuple(prompt_ids), [tuple(ids) for ids in continuations]
        if not prompt:
            raise EmptyPromptError
        process = await self._running()
        for ids in texts:
            check_request(Request(prompt + ids, top_logprobs=top_logprobs), self.capabilities)
        scoring = Scoring(process, prompt, top_logprobs, self._fallback_k(), self._deadline)
        return await process.loop.arun(scoring.candidates(texts))

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return what is inside the model while the tokens of each text pass through it.

        A pass of its own, on the engine's weights; the first one is checked against the engine.
        """
        if self.capabilities.why_no_activations:
            return await super().inspect_all(texts, inspection)
        process = await self._running()
        looking = Looking(process, inspection, self.score, self._deadline)
        return await process.loop.arun(looking.internals([tuple(text) for text in texts]))

    async def _started(self, request: Request) -> EngineProcess:
        check_request(request, self.capabilities)
        process = await self._running()
        check_request(request, self.capabilities)  # now the context length is known
        check_seed(request, process.llm.vllm_config)
        return process

    async def _running(self) -> EngineProcess:
        process = self._process
        if process is None or (process.is_dead and self._release):
            return await asyncio.to_thread(self.start)
        return process

    def _drawing(
        self, process: EngineProcess, request: Request, monitor: SampleMonitor | None = None
    ) -> Drawing:
        return Drawing(process, request, self._deadline, self._fallback_k(), monitor)

    def _fallback_k(self) -> int:
        most = self.capabilities.max_top_logprobs
        return DEFAULT_MAX_LOGPROBS if most == -1 else min(most, DEFAULT_MAX_LOGPROBS)
