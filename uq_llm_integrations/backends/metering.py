"""A backend whose costs are counted, one wrapper a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.backends.row_checks import (
    check_answers,
    check_given,
    check_streamed,
    sound_candidate,
    sound_piece,
)
from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.errors import EngineDeadError
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Inspection,
    Request,
    SampleMonitor,
    StreamPiece,
    Usage,
)


class MeteredBackend:
    """A backend whose costs are counted: what one request's strategy and methods see.

    All answers enter here, of every backend: rows that cannot be true are left out of their trace,
    which then says why (`TokenTrace.damage`). What is no answer to the request, or another number
    of them, is an EngineError.

    Generation, scoring and inspection add to `usage` once they succeed; turning text into tokens
    and back costs nothing. Seconds are not counted here. A wrapper serves one request; the backend
    below it is shared. What a wrapper made by `on` counts is counted here, too. With `is_data`,
    names of control tokens in prompts that methods write about the answers are text.

    Example:
        >>> backend = ScriptedBackend(["Paris"])
        >>> metered = MeteredBackend(backend)
        >>> candidates = backend.run(metered.generate(Request((65, 66))))
        >>> metered.usage.prompt_tokens, metered.usage.generated_tokens
        (2, 5)
    """

    def __init__(
        self, backend: Backend, whole: MeteredBackend | None = None, *, is_data: bool = False
    ) -> None:
        self.backend, self._whole, self._is_data = backend, whole, is_data
        self.usage = Usage()
        """What all calls so far have cost."""
        self.encode = self._encode_data if is_data else backend.encode
        self.encode_chat = backend.encode_chat
        self.encode_continuation = backend.encode_continuation
        self.decode, self.token_texts = backend.decode, backend.token_texts
        self.tokenizer = backend.tokenizer

    def on(self, backend: Backend) -> MeteredBackend:
        """Return a wrapper of another backend, for the same request."""
        return MeteredBackend(backend, self, is_data=self._is_data)

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can serve."""
        return self.backend.capabilities

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return `request.n` candidates; the prompt's tokens count once."""
        found = await self.backend.generate(request, monitor)
        candidates = [*map(sound_candidate, check_answers(found, request.prompt_ids, request.n))]
        lengths = [len(one.token_ids) for one in candidates]
        self._count(
            Usage(
                prompt_tokens=len(request.prompt_ids),
                generated_tokens=sum(lengths),
                cached_tokens=next((one.cached_tokens for one in candidates if not one.error), 0),
                forward_passes=max(lengths, default=0),
            )
        )
        return candidates

    async def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Yield the backend's pieces; what they cost is counted with the answer they make."""
        token_ids: list[int] = []
        async with closed_at_end(self.backend.stream(request)) as pieces:
            async for piece in pieces:
                token_ids += piece.token_ids
                if piece.candidate is None:
                    yield sound_piece(piece)
                    continue
                check_streamed(piece.candidate, request.prompt_ids, token_ids)
                yield sound_piece(piece)
                return
        raise EngineDeadError("the backend ended a stream without its last piece")

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the traces of given tokens behind a prompt; they count as one forward pass."""
        given = await self.backend.score_all(prompt_ids, continuations, top_logprobs)
        candidates = [*map(sound_candidate, check_given(given, prompt_ids, continuations))]
        self._count(
            Usage(
                prompt_tokens=len(prompt_ids),
                scored_tokens=sum(len(one.token_ids) for one in candidates),
                cached_tokens=sum(one.cached_tokens for one in candidates),
                forward_passes=1,
            )
        )
        return candidates

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return the activations at the tokens of each text; they count as one forward pass."""
        activations = await self.backend.inspect_all(texts, inspection)
        self._count(Usage(scored_tokens=sum(map(len, texts)), forward_passes=1))
        return activations

    async def _encode_data(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt; in the chat template, texts are text in any case."""
        backend = self.backend
        return await (backend.encode(text, chat=True) if chat else backend.encode_data(text))

    def _count(self, cost: Usage) -> None:
        self.usage += cost
        if self._whole is not None:
            self._whole._count(cost)
