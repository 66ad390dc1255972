"""The model with everything that a user configured: what all entrances are faces of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.capabilities import check_n, check_top_logprobs
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.backends.prompts import encode_prompt
from uq_llm_integrations.backends.sampling_values import stop_strings
from uq_llm_integrations.backends.streams import ClosableStream, closed_at_end
from uq_llm_integrations.backends.token_texts import candidate_texts
from uq_llm_integrations.backends.vllm.backend import VLLMEngineBackend
from uq_llm_integrations.calibration.origin import Origin
from uq_llm_integrations.chat.counting import count_tokens
from uq_llm_integrations.chat.exchange import Exchange
from uq_llm_integrations.chat.reply import ChatResult, ReplyPiece, Turn
from uq_llm_integrations.chat.turns import Messages, turn_of
from uq_llm_integrations.config import Configuration, configured
from uq_llm_integrations.errors import (
    ConfigurationError,
    EngineTimeoutError,
    InvalidRequestError,
    described,
)  # fmt: skip  # a list of names
from uq_llm_integrations.given_answers import GivenAnswers
from uq_llm_integrations.identity import KEY_VERSION
from uq_llm_integrations.origins import check_origin, origin_of
from uq_llm_integrations.records import Conversation, Request, Result
from uq_llm_integrations.report.heat_map import remember_backend
from uq_llm_integrations.report.metadata import Metadata, token_metadata, uncertainty_metadata
from uq_llm_integrations.settings import Settings, of_options
from uq_llm_integrations.strategies.base import (
    Run,
    Strategy,
    check_function,
    check_run,
    completed,
    run_strategies,
)  # fmt: skip  # a list of names
from uq_llm_integrations.strategies.observed_streams import observed_pieces
from uq_llm_integrations.strategies.streaming import EndedBy, check_stream, stream_strategy
from uq_llm_integrations.telemetry.observed_calls import (
    ObservedCall,
    observed,
    operation_of,
)
from uq_llm_integrations.truncation import GivenText, Ids

T = TypeVar("T")


class UncertaintyModel(GivenAnswers):
    """A model that scores its answers, decides about them, and is useful without any framework.

    `backend` is a backend, or the name of a model for vLLM. All other arguments are fields of
    `Settings`, and each method takes them, too, for one call. Every method has an async twin with
    an `a` before its name.

    Example:
        >>> from uq_llm_integrations import ScriptedBackend, UncertaintyModel
        >>> backend = ScriptedBackend(["Paris"])
        >>> with UncertaintyModel(backend, uncertain_when="entropy > 2") as model:
        ...     result = model.generate("Capital of France?")
        >>> result.text, result.decision.is_uncertain
        ('Paris', False)
    """

    def __init__(
        self, backend: Backend | str, settings: Settings | None = None, **options: object
    ) -> None:
        self.backend = VLLMEngineBackend(backend) if isinstance(backend, str) else backend
        if not isinstance(self.backend, Backend):
            raise ConfigurationError(
                f"{described(backend)} is neither a backend nor the name of a model"
            )
        if not isinstance(settings, Settings | None):
            raise ConfigurationError(
                f"{described(settings)} are no Settings; give options by their names"
            )
        base = settings or Settings(**options)
        self.settings = base.updated(options) if settings and options else base
        self._compared: set[bool] = set()
        self._prepare()

    @classmethod
    def from_config(cls, source: str | Path | Mapping[str, Any]) -> Self:
        """Return the model that a YAML file or a dict describes (see `Configuration`)."""
        configuration = Configuration.read(source)
        with configured(source):
            return cls(configuration.generator.backend(), configuration.settings)

    def with_options(self, **options: object) -> Self:
        """Return a copy with some options changed, which shares the backend."""
        return type(self)(self.backend, self.settings.updated(options)) if options else self

    def _prepare(self) -> None:
        """Make of the settings, once, what every call needs.

        Raises ConfigurationError for what the backend can never serve.
        """
        settings, capabilities = self.settings, self.backend.capabilities
        self.method_options = settings.all_method_options()
        self.methods = settings.all_methods(capabilities)
        self.strategy, self._sampling = settings.deciding(), settings.all_sampling()
        with of_options():
            check_n(settings.n, capabilities.max_n)
            check_top_logprobs(settings.top_logprobs, capabilities.max_top_logprobs)
            check_stream(
                self.strategy,
                self.request((0,)),
                capabilities,
                self.methods,
                self.method_options,
                settings.stop_if,
            )
        if settings.stop_if is not None:
            self.strategy = EndedBy(self.strategy, settings.stop_if)
        self._capabilities = capabilities

    @cached_property
    def identity(self) -> Metadata:
        """Everything that an answer and its scores depend on: what caches use as their key."""
        model = self.backend.capabilities.model
        own = {"model": model, "backend": self.backend.fingerprint, "key_version": KEY_VERSION}
        return {**self.settings.identity(), **own}

    def origin(self) -> Origin:
        """Return what the answers and their scores come from: what a calibration is made with.

        Those of a chat are in the chat template, as those of prompts with `chat_template=True`.
        """
        return self.backend.run(self.aorigin())

    async def aorigin(self) -> Origin:
        """Return what `origin` does."""
        return await origin_of(self.backend, self.settings)

    def request(
        self,
        ids: Ids,
        text: str | None = None,
        conversation: Conversation | None = None,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> Request:
        """Return the request for a prompt, with further stop strings and sampling parameters."""
        settings = self.settings
        own = settings.all_sampling(stop) if stop else self._sampling
        return Request(
            ids,
            settings.n,
            settings.top_logprobs,
            {**own, **sampling},
            settings.early_stop,
            text=text,
            chat=settings.chat_template,
            conversation=conversation,
            live=settings.token_scores,
            allow_special_tokens=settings.allow_special_tokens,
        )

    def generate(self, prompt: str, **options: Any) -> Result:
        """Return the answer to a prompt, scored and decided about."""
        return self.backend.run(self.agenerate(prompt, **options))

    async def agenerate(self, prompt: str, **options: Any) -> Result:
        """Return what `generate` does."""
        return (await self.agenerate_all([prompt], **options))[0]

    def generate_all(self, prompts: Sequence[str], **options: Any) -> list[Result]:
        """Return the answers to several prompts, which meet in the backend's batch.

        Where one fails, the others are finished, and the error's `completed` has their results,
        by their indices.
        """
        return self.backend.run(self.agenerate_all(prompts, **options))

    async def agenerate_all(
        self,
        prompts: Sequence[str],
        stop: str | Sequence[str] | None = None,
        **options: object,
    ) -> list[Result]:
        """Return what `generate_all` does; `stop` has further stop strings, or is one."""
        model = self.with_options(**options)
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise InvalidRequestError(f"the prompts are {described(prompts)}; give a list of texts")
        stops = stop_strings(stop)
        requests = [await model._request_or_error(prompt, stops) for prompt in prompts]
        await model._ready()
        running = run_strategies(
            model.strategy, requests, self.backend, model.methods, model.method_options
        )
        results = await model._in_time(running)
        for one in results:
            remember_backend(one, self.backend)
        return results

    def chat(self, messages: Messages | Turn, **options: object) -> ChatResult:
        """Return the model's next message, with its scores and those of its parts.

        Beside options: `tools`, in OpenAI's shape, `tool_choice`, `parallel_tool_calls` (False for
        one call at most), `schema`, a JSON Schema or pydantic class that the answer follows where
        it calls no tool, `stop`, and `continue_final_message` (True where the last message is the
        assistant's, and the answer goes on from its end). Raises HighUncertaintyError where the
        model abstains from an answer by a schema.
        """
        return self.backend.run(self.achat(messages, **options))

    async def achat(self, messages: Messages | Turn, **options: object) -> ChatResult:
        """Return what `chat` does."""
        turn, options = (
            (messages, options) if isinstance(messages, Turn) else turn_of(messages, options)
        )
        model = self.with_options(**options) if options else self
        exchange = Exchange(model, turn)
        return await exchange.replies(await model.answer(await exchange.request()))

    def stream(self, messages: Messages | Turn, **options: Any) -> Iterator[ReplyPiece]:
        """Yield the model's next message piece by piece; the last piece has its scores.

        Takes what `chat` takes. Closing the stream stops the engine's work; `on_closed`, a
        function, then gets the `Result` of what was drawn: its tokens, usage and scores. It is
        called where the stream is closed, or its reader cancelled, before the last piece.
        """
        return self.backend.iterate(self.astream(messages, **options))

    def astream(
        self,
        messages: Messages | Turn,
        *,
        on_closed: Callable[[Result], None] | None = None,
        **options: object,
    ) -> AsyncGenerator[ReplyPiece, None]:
        """Yield what `stream` does; another task than the reader's may close it, too."""
        return ClosableStream(self._pieces(messages, on_closed, options))

    async def _pieces(
        self,
        messages: Messages | Turn,
        on_closed: Callable[[Result], None] | None,
        options: dict[str, Any],
    ) -> AsyncGenerator[ReplyPiece, None]:
        turn, options = (
            (messages, options) if isinstance(messages, Turn) else turn_of(messages, options)
        )
        model = self.with_options(**options)
        exchange = Exchange(model, turn)
        request = await exchange.request()
        await model._ready(is_chat=True)
        check_function("on_closed", on_closed)
        call = model._observed(request)
        run = replace(model.run_of(request), on_closed=call.closing(on_closed))
        strategy = model.settings.deciding(streamed=True)
        answer = stream_strategy(strategy, run, model.settings.stop_if)
        async with closed_at_end(observed_pieces(call, answer)) as pieces:
            while piece := await model._in_time(anext(pieces, None), "next piece"):
                yield await exchange.piece(piece)

    def count_tokens(self, messages: Messages | Turn, **options: object) -> int:
        """Return how many tokens the model is given for messages, in its chat template.

        Those of `tools` are included. Takes what `chat` takes.
        """
        return self.backend.run(self.acount_tokens(messages, **options))

    async def acount_tokens(self, messages: Messages | Turn, **options: object) -> int:
        """Return what `count_tokens` does."""
        turn, options = (
            (messages, options) if isinstance(messages, Turn) else turn_of(messages, options)
        )
        settings = self.with_options(**options).settings
        return await count_tokens(self.backend, settings.completed(turn.conversation))

    async def ametadata(self, result: Result) -> list[Metadata]:
        """Return the metadata of each candidate, with that of its tokens for `token_scores`."""
        rows = [uncertainty_metadata(result, index) for index in range(len(result.candidates))]
        if self.settings.token_scores:
            for one, metadata in zip(result.candidates, rows, strict=True):
                texts = await candidate_texts(self.backend, one)
                metadata["by_token"] = token_metadata(one.token_ids, one.trace, texts)
        return rows

    def close(self) -> None:
        """Give back what the backend holds. Closing twice is harmless.

        Calls that are under way, and all later ones, raise EngineClosedError.
        """
        self.backend.close()

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, UncertaintyModel)
        return (self.backend, self.settings) == (other.backend, other.settings)

    def __hash__(self) -> int:
        return hash((type(self), self.backend))

    def __getstate__(self) -> dict[str, object]:
        return {name: one for name, one in self.__dict__.items() if name != "identity"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.close)

    async def _request_or_error(
        self, prompt: str, stop: Sequence[str]
    ) -> Request | InvalidRequestError:
        """Return the request for a prompt, or why it can never work; others of a batch may."""
        try:
            return await self._request(prompt, stop)
        except InvalidRequestError as error:
            return error

    async def _request(self, prompt: str, stop: Sequence[str] = ()) -> Request:
        if not isinstance(prompt, str):
            raise InvalidRequestError(f"the prompt is {described(prompt)}, not a text")
        return self.request(await self.encode_prompt(prompt), prompt, stop=stop)

    async def encode_prompt(self, prompt: str) -> Ids:
        """Return the token ids of a prompt, as the settings say."""
        return await encode_prompt(
            self.backend,
            prompt,
            chat=self.settings.chat_template,
            allow_special_tokens=self.settings.allow_special_tokens,
        )

    def run_of(self, request: Request) -> Run:
        """Return the run that a strategy is given for a request."""
        backend = MeteredBackend(self.backend, is_data=request.is_data)
        return Run(backend, request, self.methods, self.method_options)

    def _observed(self, request: Request) -> ObservedCall:
        """Return a streamed call from its begin on."""
        model, streamed = self.backend.capabilities.model, {"gen_ai.request.stream": True}
        return ObservedCall(operation_of(request), model, request, **streamed)

    async def _ready(self, *, is_chat: bool = False) -> None:
        if self.settings.calibration and is_chat not in self._compared:
            own = self.settings.updated({"chat_template": True}) if is_chat else self.settings
            await check_origin(self.backend, own)
            self._compared.add(is_chat)
        if self.backend.capabilities != self._capabilities:  # more is known once an engine runs
            self._prepare()

    async def answer(self, request: Request, strategy: Strategy | None = None) -> Result:
        """Run a strategy, or the configured one, within the timeout and under the policy."""
        await self._ready(is_chat=request.conversation is not None)
        deciding, run = self.strategy, self.run_of(request)
        if strategy:
            deciding = self.settings.deciding(strategy)
            check_run(deciding, run)
        is_given = isinstance(strategy, GivenText)
        operation = "score" if is_given else operation_of(request)
        with observed(operation, self.backend.capabilities.model, request) as call:
            call.result = await self._in_time(completed(deciding, run))
        remember_backend(call.result, self.backend)
        return call.result

    async def _in_time(self, running: Awaitable[T], what: str = "answer") -> T:
        try:
            with self.backend.open_calls.call():
                async with asyncio.timeout(self.settings.timeout) as scope:
                    return await running
        except TimeoutError as error:
            if not scope.expired():
                raise
            text = f"no {what} within {self.settings.timeout} seconds"
            raise EngineTimeoutError(text) from error
