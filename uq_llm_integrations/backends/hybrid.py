"""Two backends as one: one generates, the other looks inside the model at the very same tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.turns import Turns
from uq_llm_integrations.errors import ConfigurationError
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

_PROBES = (
    "The capital of France is Paris.",
    "  def f(x):\n\treturn x**2  # 3.14159",
    "naïve Zürich 東京 Привет 🙂 ﬁne",
    "<|im_start|>user\n<s>[INST] </s><|endoftext|>",
)
"""Texts that tokenizers split differently unless they are the same."""


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
    are; that is seen to on first use, and ConfigurationError names the first difference. The scorer
    may be quantized.

    With `sequential` only one of them is in the device's memory: while the scorer works, the
    generator sleeps, and new generation waits. All inspections that wait at the same time share one
    sleep. The generator must be a `Sleeper` and the scorer `Unloadable`. A stream counts as
    generation until it is closed, so do not wait for internals while one is open.
    """

    def __init__(self, generator: Backend, scorer: Backend, *, sequential: bool = False) -> None:
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
        self._generator, self._scorer = generator, scorer
        # One that sleeps would be woken by a question about text.
        self._reader = scorer if sequential else generator
        self._turns = Turns(self._to_scorer, self._to_generator) if sequential else None
        self._is_checked = self._is_closed = False

    @property
    def capabilities(self) -> Capabilities:
        """What the generator can serve, and internals."""
        return replace(self._generator.capabilities, why_no_activations=None)

    @property
    def loop(self) -> LoopThread:
        """The generator's event loop; the scorer's where the generator may end with its own."""
        return self._generator.loop if self._turns is None else self._scorer.loop

    def check(self, request: Request) -> None:
        """Raise InvalidRequestError for a request that can never work."""
        self._generator.check(request)

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt, by the tokenizer of both."""
        await self._checked()
        return await self._reader.encode(text, chat=chat)

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation, by the tokenizer of both."""
        await self._checked()
        return await self._reader.encode_chat(conversation)

    async def tokenizer(self) -> Any:
        """Return the tokenizer of both."""
        return await self._reader.tokenizer()

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text that follows other text."""
        return await self._reader.encode_continuation(text)

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return await self._reader.decode(token_ids)

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""
        return await self._reader.token_texts(token_ids)

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return the generator's candidates."""
        await self._checked()
        return await self._in_turn(lambda: self._generator.generate(request, monitor))

    async def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate one candidate piece by piece with the generator."""
        await self._checked()
        if self._turns is None:
            stream = self._generator.stream(request)
        else:
            loop = await self._running_loop()
            stream = loop.aiterate(self._streamed(self._turns, request))
        async with aclosing(stream) as pieces:
            async for piece in pieces:
                yield piece

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the traces of given tokens behind a prompt, from the generator."""
        await self._checked()
        return await self._in_turn(
            lambda: self._generator.score_all(prompt_ids, continuations, top_logprobs)
        )

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return what is inside the scorer while the very same tokens pass through it."""
        await self._checked()
        if self._turns is None:
            return await self._scorer.inspect_all(texts, inspection)
        loop = await self._running_loop()
        return await loop.arun(self._inspected(self._turns, texts, inspection))

    def close(self) -> None:
        """Close both backends."""
        self._is_closed = True
        if self._turns is not None and self._turns.is_changing and not self.loop.is_here:
            self.loop.run(self._turns.settled())
        self._scorer.close()
        self._generator.close()

    async def _inspected(
        self, turns: Turns, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        async with turns.by_night():
            return await self._scorer.inspect_all(texts, inspection)

    async def _to_scorer(self) -> None:
        """Leave the memory to the scorer."""
        assert isinstance(self._generator, Sleeper)
        await self._generator.sleep()

    async def _to_generator(self) -> None:
        """Leave the memory to the generator."""
        assert isinstance(self._generator, Sleeper) and isinstance(self._scorer, Unloadable)
        if self._is_closed:
            return
        try:
            await asyncio.to_thread(self._scorer.unload)
        finally:
            await self._generator.wake()
        if self._is_closed:  # meanwhile, by someone on this very loop, who could not wait
            self._generator.close()

    async def _in_turn(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await what is made, with the generator awake."""
        if self._turns is None:
            return await make()
        return await (await self._running_loop()).arun(_among_others(self._turns, make))

    async def _streamed(self, turns: Turns, request: Request) -> AsyncGenerator[StreamPiece, None]:
        async with turns.by_day(), aclosing(self._generator.stream(request)) as pieces:
            async for piece in pieces:
                yield piece

    async def _running_loop(self) -> LoopThread:
        """Return the one loop on which turns are taken; asking for it may start an engine."""
        return await asyncio.to_thread(lambda: self.loop)

    async def _checked(self) -> None:
        """See to it, once, that both sides mean the same by a token."""
        if not self._is_checked:
            await self._in_turn(self._check_tokens)

    async def _check_tokens(self) -> None:
        for text in _PROBES:
            ours, theirs = [await side.encode(text) for side in (self._generator, self._scorer)]
            if ours != theirs:
                raise ConfigurationError(_difference(text, ours, theirs))
        sizes = [side.capabilities.vocabulary_size for side in (self._generator, self._scorer)]
        if None not in sizes and sizes[0] != sizes[1]:
            raise ConfigurationError(
                f"the generator has {sizes[0]} tokens and the scorer {sizes[1]}; "
                "both must be of the same vocabulary"
            )
        self._is_checked = True


async def _among_others(turns: Turns, make: Callable[[], Awaitable[T]]) -> T:
    async with turns.by_day():
        return await make()


def _difference(text: str, ours: tuple[int, ...], theirs: tuple[int, ...]) -> str:
    pairs = enumerate(zip(ours, theirs, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    one, other = (list(ids[place : place + 3]) for ids in (ours, theirs))
    return (
        f"the generator's and the scorer's tokenizers differ on {text!r}: "
        f"from token {place} on it is {one} and {other}; both must be of the same model"
    )
