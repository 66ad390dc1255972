"""Two backends as one: one generates, the other shows the activations of the very same tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeVar, get_args, runtime_checkable

from uq_llm_integrations.backends.base import Backend, Shared
from uq_llm_integrations.backends.capabilities import MAX_N, Capabilities
from uq_llm_integrations.backends.codec import check_same_tokens
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.huggingface.backend import HuggingFaceBackend
from uq_llm_integrations.backends.model_facts import ModelFacts
from uq_llm_integrations.backends.phase_lock import Phase, PhaseLock
from uq_llm_integrations.backends.server.arguments import server_backend
from uq_llm_integrations.backends.streams import closed_at_end, stream_of
from uq_llm_integrations.backends.vllm.backend import VLLMEngineBackend
from uq_llm_integrations.errors import ConfigurationError, described
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Conversation,
    Inspection,
    Request,
    SampleMonitor,
    StreamPiece,
)

T = TypeVar("T")
Mode = Literal["shared", "resident", "sequential"]
Arguments = Mapping[str, Any]
"""Named arguments of a backend."""


def hybrid_backend(
    model: str,
    mode: Mode = "shared",
    vllm: Arguments | None = None,
    huggingface: Arguments | None = None,
    *,
    max_n: int = MAX_N,
) -> Backend:
    """Return a backend that generates on vLLM and shows hidden states and attention.

    `shared` runs the Hugging Face definition on the engine's own weights: one copy in memory.
    `resident` loads a second copy, which `huggingface` may have quantised (`quantization="int8"`).
    `sequential` loads it while the engine sleeps. Nothing is loaded yet. With a `base_url` among
    vLLM's arguments it generates on servers, which serve the model by the same name unless these
    arguments have another `model`, and the second copy is `resident` here.

    Example:
        backend = hybrid_backend("smollm2", "resident", huggingface={"quantization": "int8"})
    """
    if mode not in get_args(Mode):
        raise ConfigurationError(
            f"mode is {described(mode)}; allowed are {', '.join(get_args(Mode))}"
        )
    for name, given in (("vllm", vllm), ("huggingface", huggingface)):
        if not isinstance(given, Mapping | None):
            raise ConfigurationError(
                f"{name} is {described(given)}; it maps arguments to their values"
            )
    engine = {"max_n": max_n, **(vllm or {})}
    if "base_url" in engine:
        return _on_servers(model, mode, engine, huggingface or {})
    if mode == "shared":
        if huggingface:
            raise ConfigurationError(
                f"in shared mode Hugging Face loads nothing, so {sorted(huggingface)} do nothing; "
                "use mode 'resident' or 'sequential'"
            )
        return VLLMEngineBackend(model, **engine)
    if mode == "sequential":
        engine = {"enable_sleep_mode": _has_sleep_mode(), **engine}
    generator = VLLMEngineBackend(model, **engine)
    scorer = HuggingFaceBackend(model, **dict(huggingface or {}))
    return HybridBackend(generator, scorer, sequential=mode == "sequential")


def _on_servers(model: str, mode: Mode, server: Arguments, huggingface: Arguments) -> Backend:
    if mode != "resident":
        raise ConfigurationError(
            f"mode is {mode!r}; with base_url it is 'resident': the weights of a server are not "
            "at hand here, nor does it sleep"
        )
    generator = server_backend({"model": model, **server})
    return HybridBackend(generator, HuggingFaceBackend(model, **dict(huggingface)))


def _has_sleep_mode() -> bool:
    """Return whether vLLM can sleep here; elsewhere its engine ends and starts again."""
    import torch

    return bool(torch.cuda.is_available())


@runtime_checkable
class Sleeper(Protocol):
    """A generator that can leave its memory to another for a while."""

    async def sleep(self) -> None:
        """Give the device's memory back, with the weights in it."""

    async def wake(self) -> None:
        """Take the memory again; generation goes on as before."""


@runtime_checkable
class Unloadable(Protocol):
    """A scorer that loads its weights on use and can drop them."""

    def unload(self) -> None:
        """Drop the weights, blocking."""


class HybridBackend(Backend):
    """Generates and scores with `generator`; hidden states and attention come from `scorer`.

    Both must have the same tokenizer and vocabulary, since the token ids are handed over as they
    are; the first use checks that, and ConfigurationError names the first difference. The scorer
    may be quantized.

    With `sequential` only one of them is in the device's memory: while the scorer works, the
    generator sleeps, and new generation waits. All inspections that wait at the same time share one
    sleep. The generator must be a `Sleeper` and the scorer `Unloadable`. A stream counts as
    generation until it is closed, so do not wait for activations while one is open.

    A copy shares both backends; the last of the copies to be closed closes them.

    Example:
        with HybridBackend(VLLMEngineBackend("smollm2"), HuggingFaceBackend("smollm2")) as both:
            (found,) = both.run(both.inspect_all([(504, 3575)], Inspection((-1,))))
            found.hidden[-1].shape  # (2, 576)
    """

    def __init__(self, generator: Backend, scorer: Backend, *, sequential: bool = False) -> None:
        _check_parts(generator, scorer, sequential=sequential)
        self._pair = _Pair(generator, scorer, sequential)
        self._pair.join(self)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._pair = copy(self._pair)  # itself, but for a forked child
        self._pair.join(self)

    def _identity(self) -> tuple[object, ...]:
        return self._pair.generator, self._pair.scorer, self._pair.lock is None

    def identity_parts(self) -> object:
        """Return both backends; where their weights are meanwhile changes no answer."""
        return self._pair.generator, self._pair.scorer

    @property
    def capabilities(self) -> Capabilities:
        """What the generator can serve, and activations."""
        return replace(self._pair.generator.capabilities, why_no_activations=None)

    @property
    def loop(self) -> LoopThread:
        """The generator's event loop; the scorer's where the generator may end with its own."""
        return self._pair.codec.loop

    def check(self, request: Request) -> None:
        """Raise InvalidRequestError for a request that can never work."""
        self._pair.generator.check(request)

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt, by the tokenizer of both."""
        with self.open_calls.call():
            await self._check_tokens()
            return await self._pair.codec.encode(text, chat=chat)

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation, by the tokenizer of both."""
        with self.open_calls.call():
            await self._check_tokens()
            return await self._pair.codec.encode_chat(conversation)

    async def facts(self) -> ModelFacts:
        """Return the generator's."""
        return await self._pair.generator.facts()

    async def tokenizer(self) -> object:
        """Return the tokenizer of both."""
        self.open_calls.check()
        return await self._pair.codec.tokenizer()

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text that follows other text."""
        self.open_calls.check()
        return await self._pair.codec.encode_continuation(text)

    async def encode_data(self, text: str, *, continues: bool = False) -> tuple[int, ...]:
        """Return the token ids of a text in which names of control tokens are text."""
        with self.open_calls.call():
            await self._check_tokens()
            return await self._pair.codec.encode_data(text, continues=continues)

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        self.open_calls.check()
        return await self._pair.codec.decode(token_ids)

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""
        self.open_calls.check()
        return await self._pair.codec.token_texts(token_ids)

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return the generator's candidates."""
        with self.open_calls.call():
            await self._check_tokens()
            return await self._in_phase(
                Phase.GENERATION, lambda: self._pair.generator.generate(request, monitor)
            )

    def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate one candidate piece by piece with the generator."""
        return stream_of(self.open_calls, self._pieces(request))

    async def _pieces(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        await self._check_tokens()
        stream, lock = self._pair.generator.stream(request), self._pair.lock
        if lock is not None:
            stream = (await self._running_loop()).aiterate(_held(lock, stream))
        async with closed_at_end(stream) as pieces:
            async for piece in pieces:
                yield piece

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the traces of given tokens behind a prompt, from the generator."""
        with self.open_calls.call():
            await self._check_tokens()
            return await self._in_phase(
                Phase.GENERATION,
                lambda: self._pair.generator.score_all(prompt_ids, continuations, top_logprobs),
            )

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return the scorer's activations at the very same tokens."""
        with self.open_calls.call():
            await self._check_tokens()
            return await self._in_phase(
                Phase.INSPECTION, lambda: self._pair.scorer.inspect_all(texts, inspection)
            )

    def close(self) -> None:
        """Close both backends, unless copies of this one still use them."""
        super().close()
        lock = self._pair.lock
        if not self._pair.leave(self):
            return
        self._pair.is_closed = True
        if lock is not None and lock.is_switching and not self.loop.is_here:
            self.loop.run(lock.wait_for_switch())
        self._pair.scorer.close()
        self._pair.generator.close()

    async def _in_phase(self, phase: Phase, work: Callable[[], Awaitable[T]]) -> T:
        """Await work; where only one of both is in memory, while it is the right one."""
        return await self._beside_lock(lambda: _hold(self._pair.lock, phase, work))

    async def _beside_lock(self, work: Callable[[], Coroutine[object, object, T]]) -> T:
        """Await work on the one loop on which the lock lives; without a lock, on any."""
        if self._pair.lock is None:
            return await work()
        return await (await self._running_loop()).arun(work())

    async def _running_loop(self) -> LoopThread:
        """Return the one loop on which the lock lives; reading it may start an engine."""
        return await asyncio.to_thread(lambda: self.loop)

    async def _check_tokens(self) -> None:
        """Check once that both sides mean the same by a token."""
        if not self._pair.is_checked:
            await self._beside_lock(self._pair.check_tokens)


class _Pair(Shared):
    """Both backends of a hybrid one and its copies."""

    def __init__(self, generator: Backend, scorer: Backend, sequential: bool) -> None:
        super().__init__(generator, scorer, sequential)
        self.generator, self.scorer = generator, scorer
        self.lock = PhaseLock(self._to_inspection, self._to_generation) if sequential else None
        self.is_checked = self.is_closed = False

    def _make_anew(self) -> _Pair:
        return _Pair(copy(self.generator), copy(self.scorer), self.lock is not None)

    @property
    def codec(self) -> Backend:
        """Who encodes and decodes: not one that may sleep, which would be woken for it."""
        return self.generator if self.lock is None else self.scorer

    async def check_tokens(self) -> None:
        if self.is_checked:  # meanwhile, by another call, and the generator may sleep since
            return
        await _hold(self.lock, Phase.GENERATION, self._compare_tokens)

    async def _compare_tokens(self) -> None:
        await check_same_tokens(self.generator, self.scorer)
        self.is_checked = True

    async def _to_inspection(self) -> None:
        assert isinstance(self.generator, Sleeper)
        await self.generator.sleep()

    async def _to_generation(self) -> None:
        assert isinstance(self.generator, Sleeper) and isinstance(self.scorer, Unloadable)
        if self.is_closed:
            return
        try:
            await asyncio.to_thread(self.scorer.unload)
        finally:
            await self.generator.wake()
        if self.is_closed:  # meanwhile, by someone on this very loop, who could not wait
            self.generator.close()


def _check_parts(generator: Backend, scorer: Backend, *, sequential: bool) -> None:
    for name, part in (("generator", generator), ("scorer", scorer)):
        if not isinstance(part, Backend):
            raise ConfigurationError(f"{name} is {described(part)}; it must be a backend")
    why_not = scorer.capabilities.why_no_activations
    if why_not:
        raise ConfigurationError(
            f"{scorer.capabilities.model} cannot be the scorer: {why_not}; "
            "HuggingFaceBackend can be"
        )
    if sequential and not isinstance(generator, Sleeper):
        raise ConfigurationError(
            f"sequential needs a generator that can sleep and wake; "
            f"{type(generator).__name__} cannot"
        )
    if sequential and not isinstance(scorer, Unloadable):
        raise ConfigurationError(
            f"sequential needs a scorer that can unload; {type(scorer).__name__} cannot"
        )


async def _hold(lock: PhaseLock | None, phase: Phase, work: Callable[[], Awaitable[T]]) -> T:
    async with lock.hold(phase) if lock else nullcontext():
        return await work()


async def _held(
    lock: PhaseLock, stream: AsyncGenerator[StreamPiece, None]
) -> AsyncGenerator[StreamPiece, None]:
    async with lock.hold(Phase.GENERATION), closed_at_end(stream) as pieces:
        async for piece in pieces:
            yield piece
