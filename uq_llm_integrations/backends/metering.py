"""A backend whose costs are counted, one wrapper a request."""

from collections.abc import Sequence

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.records import (
    Activations,
    Candidate,
    Conversation,
    Inspection,
    Request,
    SampleMonitor,
    Usage,
)


class MeteredBackend:
    """A backend whose costs are counted: what one request's strategy and methods see.

    Generation, scoring and inspection add to `usage` once they succeed; turning text into tokens
    and back costs nothing. Seconds are not counted here. A wrapper serves one request; the backend
    below it is shared.

    Example:
        >>> backend = ScriptedBackend(["Paris"])
        >>> metered = MeteredBackend(backend)
        >>> candidates = backend.run(metered.generate(Request((65, 66))))
        >>> metered.usage.prompt_tokens, metered.usage.generated_tokens
        (2, 5)
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.usage = Usage()
        """What all calls so far have cost."""

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can serve."""
        return self.backend.capabilities

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return `request.n` candidates; the prompt's tokens count once."""
        candidates = await self.backend.generate(request, monitor)
        lengths = [len(one.token_ids) for one in candidates]
        self.usage += Usage(
            prompt_tokens=len(request.prompt_ids),
            generated_tokens=sum(lengths),
            cached_tokens=next((one.cached_tokens for one in candidates if not one.error), 0),
            forward_passes=max(lengths, default=0),
        )
        return candidates

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the traces of given tokens behind a prompt; they count as one forward pass."""
        candidates = await self.backend.score_all(prompt_ids, continuations, top_logprobs)
        self.usage += Usage(
            prompt_tokens=len(prompt_ids),
            scored_tokens=sum(len(one.token_ids) for one in candidates),
            cached_tokens=sum(one.cached_tokens for one in candidates),
            forward_passes=1,
        )
        return candidates

    async def inspect_all(
        self, texts: Sequence[Sequence[int]], inspection: Inspection
    ) -> list[Activations]:
        """Return the activations at the tokens of each text; they count as one forward pass."""
        activations = await self.backend.inspect_all(texts, inspection)
        self.usage += Usage(scored_tokens=sum(map(len, texts)), forward_passes=1)
        return activations

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template."""
        return await self.backend.encode(text, chat=chat)

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation up to where the model's next turn begins."""
        return await self.backend.encode_chat(conversation)

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text that follows other text."""
        return await self.backend.encode_continuation(text)

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        return await self.backend.decode(token_ids)

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""
        return await self.backend.token_texts(token_ids)
