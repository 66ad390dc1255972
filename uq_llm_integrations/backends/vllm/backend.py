"""The embedded engine: vLLM inside this program, with exact statistics of every token."""

from __future__ import annotations

import asyncio
import copy
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.backends.capabilities import MAX_N, check_limits, check_request
from uq_llm_integrations.backends.codec import Tokenizer, TokenizerBackend
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.remote_code import check_remote_code
from uq_llm_integrations.backends.sampling_values import token_ids
from uq_llm_integrations.backends.streams import closed_at_end, stream_of
from uq_llm_integrations.backends.vllm.generation import Generation
from uq_llm_integrations.backends.vllm.inspection import InspectionPass, why_no_activations
from uq_llm_integrations.backends.vllm.launch import check_engine_arguments, checked_values
from uq_llm_integrations.backends.vllm.pool import POOL, engine_key
from uq_llm_integrations.backends.vllm.process import EngineProcess
from uq_llm_integrations.backends.vllm.requests import check_engine_limits
from uq_llm_integrations.backends.vllm.teacher_forcing import Scoring
from uq_llm_integrations.checkpoints import existing_folder, resolve_model
from uq_llm_integrations.errors import (
    ConfigurationError,
    EmptyPromptError,
    EngineDeadError,
    EngineError,
    EngineLostError,
    EngineTimeoutError,
    described,
)
from uq_llm_integrations.identity import Itself
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Inspection,
    Request,
    SampleMonitor,
    StreamPiece,
)
from uq_llm_integrations.secret_names import sealed
from uq_llm_integrations.secret_values import without_secrets

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

B = TypeVar("B", bound="VLLMEngineBackend")

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

_NO_PART = frozenset({"hf_token", "download_dir", "disable_log_stats", "enable_log_requests"})
"""Arguments that change no answer."""


class VLLMEngineBackend(TokenizerBackend):
    """Runs a model on vLLM in processes of its own.

    `model` is a bundled model's name, a folder or a hub name; `engine_args` are vLLM's own engine
    arguments; `trust_remote_code=True` works only where the environment has
    `UQ_LLM_ALLOW_REMOTE_CODE=1`. The engine starts on first use, and backends with the same
    arguments share one: they are equal. A copy, or what a pickle is loaded into, is such a backend
    of its own; closing it leaves the others alone. Instead of a name, `engine` takes a running
    `AsyncLLM`, which stays the caller's to shut down.

    `max_n` caps how many candidates one request may have. `deadline` is how many seconds a call
    of this backend waits for a sign of life of the engine before it is aborted and raises
    EngineTimeoutError. An engine that gives none for the longest deadline of all who use it, and at
    least `LEAST_SILENCE`, counts as dead. `restart_engine` is how often the next call starts a
    fresh one in the place of an engine that has died or hangs; after that calls raise
    EngineLostError.

    Example:
        with VLLMEngineBackend("smollm2", max_model_len=1024) as backend:
            prompt_ids = backend.run(backend.encode("The capital of France is"))
            (candidate,) = backend.run(backend.generate(Request(prompt_ids)))
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        engine: AsyncLLM | None = None,
        max_n: int = MAX_N,
        deadline: float = 120.0,
        restart_engine: int = 1,
        **engine_args: object,
    ) -> None:
        if (model is None) == (engine is None):
            raise ConfigurationError("give either a model's name or a ready engine")
        if engine is not None and engine_args:
            raise ConfigurationError(f"a ready engine takes no engine arguments: {[*engine_args]}")
        check_remote_code(engine_args)
        engine_args = checked_values(sealed(engine_args))
        check_limits(max_n, deadline)
        _check_restarts(restart_engine)
        self._max_n, self._deadline, self._restarts = max_n, deadline, restart_engine
        self._engine_args = engine_args
        self._arguments: dict[str, Any] = {}
        self._process: EngineProcess | None = None
        self._release: weakref.finalize[[EngineProcess], VLLMEngineBackend] | None = None
        """What gives the engine back, unless it is the user's own."""
        if model is not None:
            source = resolve_model(model)
            self._prepare = source.prepare
            self._arguments = {**source.engine_args(), **engine_args}
            if not engine_args.keys() <= COMMON_ARGUMENTS:
                check_engine_arguments(engine_args)
        elif engine is not None:
            self._process = POOL.adopt(engine)
            model = str(engine.model_config.model)
        self._engine, self._model = engine, str(model)

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
    def checkpoint(self) -> Path | None:
        """The folder with the engine's weights, None where vLLM takes them from elsewhere."""
        return existing_folder(self._arguments.get("model", self._model))

    @property
    def loop(self) -> LoopThread:
        """The engine's event loop; reading it starts the engine."""
        return self.start().loop

    def start(self) -> EngineProcess:
        """Start the engine unless it runs, blocking; calling this is never needed."""
        process = self._usable
        if process is None:
            waiter = POOL.reserve(self._arguments, self._prepare, self._restarts)
            with self.open_calls.blocking(waiter.cancel):
                process = POOL.wait(waiter)
            if surplus := self._replaced_by(process):
                POOL.release(surplus)
        return process

    def close(self) -> None:
        """Give the engine back; the last backend that shares it ends its processes.

        Calls that are under way, and all later ones, raise EngineClosedError.
        """
        super().close()
        self._give_back()

    def _give_back(self) -> None:
        with POOL.lock:
            release, self._release = self._release, None
            if release:
                self._process = None
        if release:
            release()

    async def sleep(self) -> None:
        """Give back the memory of the weights and the cache, until `wake`.

        With vLLM's sleep mode the engine stays; without, as on the CPU, its processes end.
        """
        process = self._usable
        if process is None:
            return
        if process.can_sleep:
            await process.loop.arun(process.llm.sleep(level=1))
        elif self._engine is not None:
            raise ConfigurationError("a ready engine without sleep mode cannot sleep")
        else:
            await asyncio.to_thread(self._give_back)

    async def wake(self) -> None:
        """Take the memory again; where the engine has ended, a new one starts."""
        process = await self._running()
        if process.can_sleep:
            await process.loop.arun(process.llm.wake_up())

    async def tokenizer(self) -> Tokenizer:
        """Return the engine's tokenizer."""
        with self.open_calls.call():
            tokenizer: Tokenizer = (await self._running()).llm.get_tokenizer()
            return tokenizer

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return `request.n` candidates, sampled as so many requests that share the prompt."""
        with self.open_calls.call():
            process, request = await self._started(request)
            generation = self._generation(process, request, monitor)
            with self._final_errors(process):
                return await process.loop.arun(generation.candidates())

    def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate one candidate piece by piece; the last piece has the scored candidate."""
        return stream_of(self.open_calls, self._pieces(request))

    async def _pieces(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        process, request = await self._started(request)
        generation = self._generation(process, request)
        stream = process.loop.aiterate(generation.pieces())
        with self._final_errors(process):
            async with closed_at_end(stream) as pieces:
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
        prompt = tuple(token_ids("the prompt", prompt_ids))
        texts = [tuple(token_ids("a text", ids)) for ids in continuations]
        if not prompt:
            raise EmptyPromptError
        with self.open_calls.call():
            process = await self._running()
            for ids in texts:
                check_request(Request(prompt + ids, top_logprobs=top_logprobs), self.capabilities)
            scoring = Scoring(process, prompt, top_logprobs, self._fallback_k(), self._deadline)
            with self._final_errors(process):
                return await process.loop.arun(scoring.candidates(texts))

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return hidden states and attention at the tokens of each text.

        A forward pass of its own, on the engine's weights; the first is checked against the engine.
        """
        if self.capabilities.why_no_activations:
            return await super().inspect_all(texts, inspection)
        with self.open_calls.call():
            process = await self._running()
            passes = InspectionPass(process, inspection, self.score, self._deadline)
            with self._final_errors(process):
                return await process.loop.arun(passes.activations([tuple(text) for text in texts]))

    async def _started(self, request: Request) -> tuple[EngineProcess, Request]:
        """Return the running engine, and the request as it is sent to it."""
        request = check_request(request, self.capabilities)
        process = await self._running()
        request = check_request(request, self.capabilities)  # now the sizes are known
        check_engine_limits(request, process.llm)
        return process, request

    async def _running(self) -> EngineProcess:
        process = self._usable
        if process is None:
            process = await POOL.aacquire(self._arguments, self._prepare, self._restarts)
            if surplus := self._replaced_by(process):
                loop = asyncio.get_running_loop()  # a caller who is cancelled here releases it, too
                await asyncio.shield(loop.run_in_executor(None, POOL.release, surplus))
        return process

    def _replaced_by(self, engine: EngineProcess) -> EngineProcess | None:
        """Use an engine, and return what to release: a dead one, or the same, got by two calls."""
        with POOL.lock:
            if self.open_calls.is_closed:  # meanwhile
                return engine
            engine.expect(self._deadline)
            old, self._process = self._process, engine
            if old is not engine:
                if self._release:
                    self._release.detach()
                self._release = weakref.finalize(self, POOL.release, engine)
                self._release.atexit = False  # at the program's end, the pool ends all
            return old

    @property
    def _usable(self) -> EngineProcess | None:
        """The engine; None where one must be started."""
        self.open_calls.check()
        process = self._process
        if process is None:
            return None
        if not process.is_of_this_process:
            raise EngineError(
                "this process was forked after the engine had started, and cannot use it: create "
                "the backend in the child, or start the child with multiprocessing's 'spawn'"
            )
        return None if process.is_dead and self._engine is None else process

    @contextmanager
    def _final_errors(self, process: EngineProcess) -> Iterator[None]:
        """Raise EngineLostError where the engine has ended, and no further call starts it again."""
        try:
            yield
        except (EngineDeadError, EngineTimeoutError) as error:
            if not process.is_dead:
                raise
            if self._engine is not None:
                raise EngineLostError(f"{error}; it is the caller's to start another") from error
            if lost := POOL.lost(self._arguments, self._restarts):
                raise lost from error
            raise

    def _generation(
        self, process: EngineProcess, request: Request, monitor: SampleMonitor | None = None
    ) -> Generation:
        return Generation(process, request, self._deadline, self._fallback_k(), monitor)

    def _fallback_k(self) -> int:
        most = self.capabilities.max_top_logprobs
        return DEFAULT_MAX_LOGPROBS if most == -1 else min(most, DEFAULT_MAX_LOGPROBS)

    def _identity(self) -> tuple[object, ...]:
        engine = engine_key(self._arguments) if self._engine is None else Itself(self._engine)
        return type(self), engine, *self._limits.values()

    @property
    def _limits(self) -> dict[str, Any]:
        limits = {"max_n": self._max_n, "deadline": self._deadline}
        return {**limits, "restart_engine": self._restarts}

    def identity_parts(self) -> object:
        """Return the arguments that change answers; a ready engine is like nothing but itself."""
        if self._engine is not None:
            return Itself(self._engine)
        arguments = without_secrets(self._arguments)
        return {name: one for name, one in arguments.items() if name not in _NO_PART}

    def __copy__(self) -> Self:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return an equal backend that shares the engine."""
        engine_args: dict[str, Any] = copy.deepcopy(self._engine_args, memo)
        other = type(self)(
            self._model if self._engine is None else None,
            engine=self._engine,
            **self._limits,
            **engine_args,
        )
        if self._engine is not None:
            other._process = self._process
        return other

    def __reduce__(self) -> tuple[Callable[..., Backend], tuple[object, ...]]:
        """Pickle what the engine is started with; another process starts an engine of its own."""
        if self._engine is not None:
            raise ConfigurationError(
                "a backend on a ready engine cannot be pickled, since the engine is in this "
                "process; give a model's name instead"
            )
        return _rebuilt, (type(self), self._model, {**self._limits, **self._engine_args})


def _check_restarts(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(
            f"restart_engine is {described(value)}; allowed are whole numbers from 0"
        )


def _rebuilt(kind: type[B], model: str, arguments: Mapping[str, Any]) -> B:
    return kind(model, **arguments)
