"""A backend that passes everything on to another one, and fails as a plan says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.backends.event_loop import LoopThread, cancel
from uq_llm_integrations.backends.model_facts import ModelFacts
from uq_llm_integrations.backends.streams import closed_at_end, stream_of
from uq_llm_integrations.identity import Itself
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Conversation,
    Inspection,
    Request,
    SampleMonitor,
    StreamPiece,
)
from uq_llm_integrations.testing.engine_faults import EngineFault

T = TypeVar("T")

Plan = Callable[[Request], EngineFault | None]

_NONE = EngineFault("none")


class FaultyBackend(Backend):
    """Gives calls of `generate`, `stream` and `score_all` the faults that a plan says.

    `plan` is given the request of each call, of `score_all` one with the prompt, and returns its
    fault or None; `seeded_plan` makes one. A call that hangs ends with the model's `timeout`, where
    it is cancelled, or where the backend is closed. Closing it closes the other backend, too.

    Example:
        >>> from uq_llm_integrations.testing import ENGINE_FAULTS, FaultyBackend, seeded_plan
        >>> plan = seeded_plan(ENGINE_FAULTS, only=["NaN rows"])
        >>> with UncertaintyModel(FaultyBackend(ScriptedBackend(["Paris"]), plan)) as model:
        ...     result = model.generate("Capital of France?")
        >>> result.text, result.score("perplexity").value
        ('Paris', None)
    """

    def __init__(self, backend: Backend, plan: Plan) -> None:
        self._backend, self._plan = backend, plan
        self.faults: list[EngineFault] = []
        """What has happened so far."""

    @property
    def capabilities(self) -> Capabilities:
        """What the other backend can serve."""
        return self._backend.capabilities

    @property
    def loop(self) -> LoopThread:
        """The other backend's event loop."""
        return self._backend.loop

    @property
    def checkpoint(self) -> Path | None:
        """The folder of the other backend's weights."""
        return self._backend.checkpoint

    async def facts(self) -> ModelFacts:
        """Return the other model's name and hashes."""
        return await self._backend.facts()

    async def tokenizer(self) -> object:
        """Return the other backend's tokenizer."""
        return await self._backend.tokenizer()

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return what the other backend does."""
        return await self._backend.encode(text, chat=chat)

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return what the other backend does."""
        return await self._backend.encode_chat(conversation)

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return what the other backend does."""
        return await self._backend.encode_continuation(text)

    async def encode_data(self, text: str, *, continues: bool = False) -> tuple[int, ...]:
        """Return what the other backend does."""
        return await self._backend.encode_data(text, continues=continues)

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return what the other backend does."""
        return await self._backend.decode(token_ids)

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return what the other backend does."""
        return await self._backend.token_texts(token_ids)

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return the other backend's candidates, or what the fault makes of them."""
        fault = self._next_fault(request)
        with self.open_calls.call():
            return await _call(fault, lambda: self._backend.generate(request, monitor))

    def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Yield the other backend's pieces, or what the fault makes of them."""
        return stream_of(self.open_calls, self._pieces(request))

    async def _pieces(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        fault, number = self._next_fault(request), 0
        if fault.when == "before":
            await _strike(fault)
        async with closed_at_end(self._backend.stream(request)) as pieces:
            async for piece in pieces:
                is_struck = fault.when == "during" and number == fault.at
                number += 1
                if is_struck:
                    await _strike(fault)
                if is_struck and fault.ends:
                    return
                if is_struck and fault.loses:
                    continue
                await asyncio.sleep(fault.token_delay)
                yield _changed_piece(piece, request, fault)
        if fault.when != "before" and not (fault.when == "during" and number > fault.at):
            await _strike(fault)

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the other backend's traces, or what the fault makes of them."""
        fault = self._next_fault(Request(tuple(prompt_ids), top_logprobs=top_logprobs))
        with self.open_calls.call():
            return await _call(
                fault, lambda: self._backend.score_all(prompt_ids, continuations, top_logprobs)
            )

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return what the other backend does."""
        return await self._backend.inspect_all(texts, inspection)

    def check(self, request: Request) -> None:
        """Raise what the other backend does."""
        self._backend.check(request)

    def close(self) -> None:
        """End all calls, and close the other backend."""
        super().close()
        self._backend.close()

    def _next_fault(self, request: Request) -> EngineFault:
        fault = self._plan(request)
        if fault is not None:
            self.faults.append(fault)
        return fault or _NONE

    def _identity(self) -> tuple[object, ...]:
        return self._backend, Itself(self._plan)


async def _strike(fault: EngineFault) -> None:
    """Let happen what ends a call or holds it up."""
    if fault.action:
        fault.action()
    if fault.hangs:
        await asyncio.Event().wait()
    if fault.error:
        raise fault.error(f"as planned: {fault.name}")


async def _call(
    fault: EngineFault, answer: Callable[[], Coroutine[object, object, list[Candidate]]]
) -> list[Candidate]:
    if fault.when == "before":
        await _strike(fault)
    task = asyncio.ensure_future(answer())
    try:
        if fault.when == "during":
            await asyncio.sleep(0)  # let the other backend begin
            await _strike(fault)
        found = await task
    finally:
        await cancel([task])
    if fault.when == "after":
        await _strike(fault)
    await asyncio.sleep(fault.token_delay)
    found = [fault.change(one) for one in found] if fault.change else found
    return fault.count(found) if fault.count else found


def _changed_piece(piece: StreamPiece, request: Request, fault: EngineFault) -> StreamPiece:
    if fault.change is None:
        return piece
    part = fault.change(Candidate(request.prompt_ids, piece.token_ids, piece.text, piece.trace))
    whole = fault.change(piece.candidate) if piece.candidate else None
    return replace(
        piece, text=part.text, token_ids=part.token_ids, trace=part.trace, candidate=whole
    )
