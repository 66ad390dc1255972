"""The client of `vllm serve`: a model on one server or many, with exact statistics of tokens."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from copy import copy
from dataclasses import astuple
from typing import Literal, TypeVar, get_args

from pydantic import SecretStr

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.backends.capabilities import MAX_N, check_limits, check_request
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.model_facts import ModelFacts
from uq_llm_integrations.backends.sampling_values import token_ids
from uq_llm_integrations.backends.server.addresses import sealed_headers, sealed_key, server_urls
from uq_llm_integrations.backends.server.encoding import Encoding
from uq_llm_integrations.backends.server.fleet import Limits
from uq_llm_integrations.backends.server.generation import Generation
from uq_llm_integrations.backends.server.link import Link
from uq_llm_integrations.backends.server.requests import check_for_server
from uq_llm_integrations.backends.server.teacher_forcing import Scoring
from uq_llm_integrations.backends.streams import bunched, closed_at_end, stream_of
from uq_llm_integrations.backends.unicode_text import check_conversation, checked_text
from uq_llm_integrations.errors import ConfigurationError, EmptyPromptError, described
from uq_llm_integrations.records import (
    Candidate,
    Conversation,
    Request,
    SampleMonitor,
    StreamPiece,
)

T = TypeVar("T")

Routes = Literal["all", "completions"]

MAX_IN_FLIGHT = 256
"""How many requests may be in flight at the same time, unless the backend is given another cap."""

WHY_NO_ACTIVATIONS = (
    "a server shows no hidden states and no attention; an engine in this program does"
)


class VLLMServerBackend(Backend):
    """A model that `vllm serve` serves, at one address or at many.

    With the plugin (`VLLM_PLUGINS=uq_llm vllm serve MODEL`) every trace is exact; a server without
    it works too, with entropies bounded by its top log-probabilities, of which a warning is logged
    once. Nothing is sent before the first use; then all servers must serve the same, else
    ConfigurationError names the difference. This process needs neither vLLM nor torch.

    `base_url` is an address, with or without `/v1`, or a list of them. Of many servers, prompts
    that begin alike go to the same one, unless it has more than its share of the work. Where one
    cannot be reached, or answers with HTTP 429, 502, 503 or 504, the next is asked, but never once
    there was a token of a stream; `Retry-After` is kept to. `routes="completions"` uses only
    `/v1/completions` and `/v1/chat/completions`, for routers that pass on no others; it needs
    `model`, the name that is served.

    `connect_timeout`, `first_token_timeout` (of a stream) and `deadline` (of a whole call) are in
    seconds; after the latter two calls raise EngineTimeoutError. No more than `max_in_flight`
    requests are sent at a time; the others wait in their order, and raise EngineBusyError where
    their deadline ends before that, or where 16 times as many wait already. `headers` are sent with
    every request, as is `api_key`; neither is ever shown.

    One object serves all threads, tasks and event loops. Copies share its connections; the last of
    them to be closed closes these.

    Example:
        with VLLMServerBackend("http://localhost:8000") as backend:
            prompt_ids = backend.run(backend.encode("The capital of France is"))
            (candidate,) = backend.run(backend.generate(Request(prompt_ids)))
    """

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
        limits = Limits(connect_timeout, first_token_timeout, deadline, max_in_flight)
        _check_limits(limits)
        _check_routes(routes, model)
        key, others = sealed_key(api_key), sealed_headers(headers)
        self._urls, self._model, self._routes = server_urls(base_url), model, routes
        self._max_n = max_n
        self._link = Link(self._urls, model, routes, key, others, limits)
        self._link.join(self)
        self._secret = key, others
        self._limits = limits

    @property
    def capabilities(self) -> Capabilities:
        """What the servers can serve; sizes, and whether it is exact, after the first contact."""
        facts = self._link.facts
        return Capabilities(
            model=facts.model if facts else self._model or self._urls[0],
            vocabulary_size=facts.vocabulary_size if facts else None,
            context_length=facts.context_length if facts else None,
            max_top_logprobs=facts.max_logprobs if facts else -1,
            max_n=self._max_n,
            why_inexact=facts.why_inexact if facts else None,
            why_no_activations=WHY_NO_ACTIVATIONS,
        )

    @property
    def loop(self) -> LoopThread:
        """The event loop on which all HTTP happens."""
        self.open_calls.check()
        return self._link.loop

    def close(self) -> None:
        """End all calls; the last of the backends that share the connections closes them."""
        super().close()
        if self._link.leave(self):
            self._link.close()

    async def facts(self) -> ModelFacts:
        """Return the name that the model is served by, and the plugin's hash of its tokenizer."""
        found = await self._link.loop.arun(self._link.fleet().met())
        return ModelFacts(found.model, tokenizer=found.tokenizer)

    def drain(self, url: str) -> None:
        """Send nothing new to one of the servers; what it is at work on goes on."""
        self._link.servers.named(server_urls(url)[0]).is_draining = True

    def resume(self, url: str) -> None:
        """Use a server again that was drained."""
        self._link.servers.named(server_urls(url)[0]).is_draining = False

    async def encode(self, text: str, *, chat: bool = False) -> tuple[int, ...]:
        """Return the token ids of a prompt; with `chat`, as a user's turn in the chat template."""
        checked_text(text, "the prompt")
        if chat:
            return await self.encode_chat(Conversation(({"role": "user", "content": text},)))
        return await self._coded(lambda encoding: encoding.encode(text)) if text else ()

    async def encode_chat(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the token ids of a conversation up to where the model's next turn begins.

        Names of control tokens in it are text, unless the conversation allows them. A server
        without the plugin would read them as these tokens: there InvalidRequestError names one.
        """
        check_conversation(conversation)
        return await self._coded(lambda encoding: encoding.encode_chat(conversation))

    async def encode_continuation(self, text: str) -> tuple[int, ...]:
        """Return the token ids of text that follows other text: no special tokens are added."""
        checked_text(text, "the text")
        return await self._coded(lambda encoding: encoding.encode_continuation(text))

    async def encode_data(self, text: str, *, continues: bool = False) -> tuple[int, ...]:
        """Return the token ids of a text in which names of control tokens are text."""
        checked_text(text, "the text")
        return await self._coded(lambda encoding: encoding.encode_data(text, continues=continues))

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        ids = self._checked(token_ids)
        return await self._coded(lambda encoding: encoding.decode(ids)) if ids else ""

    async def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the text that each token adds; a special one may add its name."""
        ids = self._checked(token_ids)
        return await self._coded(lambda encoding: encoding.token_texts(ids)) if ids else []

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return `request.n` candidates: of one request where nothing may end them early."""
        check_request(request, self.capabilities)
        with self.open_calls.call():
            return await self._link.loop.arun(self._candidates(request, monitor))

    def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Generate one candidate piece by piece; closing the stream lets the server abort."""
        return stream_of(self.open_calls, self._pieces(request))

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Return the traces of given tokens behind a prompt, each by one request.

        Where the server is not exact, the top k bound their entropies.
        """
        prompt = tuple(token_ids("the prompt", prompt_ids))
        texts = [tuple(token_ids("a text", ids)) for ids in continuations]
        if not prompt:
            raise EmptyPromptError
        with self.open_calls.call():
            return await self._link.loop.arun(self._scored(prompt, texts, top_logprobs))

    async def _candidates(self, request: Request, monitor: SampleMonitor | None) -> list[Candidate]:
        return await (await self._generation(request, monitor)).candidates()

    async def _pieces(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        check_request(request, self.capabilities)
        stream = self._link.loop.aiterate(bunched(self._own_pieces(request)))
        async with closed_at_end(stream) as bunches:  # each is one way between threads
            async for pieces in bunches:
                for piece in pieces:
                    yield piece

    async def _own_pieces(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        generation = await self._generation(request, None)
        async with closed_at_end(generation.pieces()) as pieces:
            async for piece in pieces:
                yield piece

    async def _generation(self, request: Request, monitor: SampleMonitor | None) -> Generation:
        fleet = self._link.fleet()
        facts = await fleet.met()
        request = check_request(request, self.capabilities)  # now the sizes are known
        check_for_server(request, facts)
        return Generation(fleet, facts, request, await self._link.encoding(), monitor)

    async def _scored(
        self, prompt: tuple[int, ...], texts: Sequence[tuple[int, ...]], top_logprobs: int
    ) -> list[Candidate]:
        fleet = self._link.fleet()
        facts = await fleet.met()
        for ids in texts:
            check_request(Request(prompt + ids, top_logprobs=top_logprobs), self.capabilities)
        encoding = await self._link.encoding()
        return await Scoring(fleet, facts, prompt, top_logprobs, encoding).candidates(texts)

    async def _coded(self, work: Callable[[Encoding], Awaitable[T]]) -> T:
        """Return what the servers' encoding gives."""

        async def coded() -> T:
            return await work(await self._link.encoding())

        with self.open_calls.call():
            return await self._link.loop.arun(coded())

    def _checked(self, given: Sequence[int]) -> tuple[int, ...]:
        self.open_calls.check()
        return tuple(token_ids("the tokens", given))

    def _identity(self) -> tuple[object, ...]:
        limits = self._max_n, *astuple(self._limits)
        return type(self), self._urls, self._model, self._routes, self._secret, limits

    def identity_parts(self) -> object:
        """Return which model is served where; secrets and limits change no answer."""
        return self._urls, self._model

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        link = self._link
        self._link = link.anew() if link.is_closed else copy(link)  # itself, but for a forked child
        self._link.join(self)


def _check_limits(limits: Limits) -> None:
    for name in ("connect_timeout", "first_token_timeout"):
        value = getattr(limits, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 < value <= sys.float_info.max:
            raise ConfigurationError(f"{name} is {described(value)}; allowed are seconds above 0")
    most = limits.max_in_flight
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ConfigurationError(
            f"max_in_flight is {described(most)}; allowed are whole numbers from 1"
        )


def _check_routes(routes: object, model: object) -> None:
    if routes not in get_args(Routes):
        raise ConfigurationError(
            f"routes is {described(routes)}; allowed are {', '.join(map(repr, get_args(Routes)))}"
        )
    if model is not None and (not isinstance(model, str) or not model):
        raise ConfigurationError(f"model is {described(model)}; it must be the name that is served")
    if routes == "completions" and model is None:
        raise ConfigurationError(
            "model is None; with routes='completions' nothing else says what is served, so name it"
        )
