"""The client of `vllm serve`: a model on one server or many, with exact statistics of every token."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal

from pydantic import SecretStr

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.capabilities import MAX_N, Capabilities, check_limits
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.server.addresses import sealed_headers, sealed_key, server_urls
from uq_llm_integrations.records import (
    Candidate,
    Conversation,
    Request,
    SampleMonitor,
    StreamPiece,
)

Routes = Literal["all", "completions"]

MAX_IN_FLIGHT = 256
"""How many requests may be on their way at the same time, unless the backend is given another."""


class VLLMServerBackend(Backend):
    """A model that `vllm serve` serves at one URL or at many."""

    def __init__(
        self,
        base_url: str | Sequence[str],
        *,
        model: str | None = None,
        api_key: str | SecretStr | None = None,
        max_n: int = MAX_N,
        routes: Routes = "all",
        connect_timeout: float = 5.0,
        first_token_timeout: float = 60.0,
        deadline: float = 600.0,
        max_in_flight: int = MAX_IN_FLIGHT,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        check_limits(max_n, deadline)
        self._urls = server_urls(base_url)
        self._key, self._headers = sealed_key(api_key), sealed_headers(headers)
        self._model = model
        self._max_n = max_n

    @property
    def capabilities(self) -> Capabilities:
        """What the servers can serve; sizes are known after the first contact."""
        return Capabilities(self._model or self._urls[0], None, None, -1, self._max_n)

    @property
    def loop(self) -> LoopThread:
        """The event loop on which all HTTP happens."""
        raise NotImplementedError

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template."""
        raise NotImplementedError

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation up to where the model's next turn begins."""
        raise NotImplementedError

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text that follows other text."""
        raise NotImplementedError

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        raise NotImplementedError

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds."""
        raise NotImplementedError

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return `request.n` candidates in their order."""
        raise NotImplementedError

    def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate one candidate piece by piece."""
        raise NotImplementedError

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the traces of given tokens behind a prompt."""
        raise NotImplementedError
