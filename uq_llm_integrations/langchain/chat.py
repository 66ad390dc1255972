"""What LangChain's chat classes share, whatever backend they run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, SecretStr, model_validator
from tenacity import stop_after_attempt

from uq_llm_integrations import __version__
from uq_llm_integrations.chat.exchange import Chatting
from uq_llm_integrations.chat_settings import ChatSettings
from uq_llm_integrations.errors import ConfigurationError, EngineTimeoutError
from uq_llm_integrations.langchain.events import awhole_events, whole_events
from uq_llm_integrations.langchain.messages import chat_chunk, chat_result, turn_of
from uq_llm_integrations.langchain.profile import profile_of
from uq_llm_integrations.langchain.structured import Method, structured
from uq_llm_integrations.strategies.retry import RetryErrors

_TURN = ("tools", "tool_choice", "response_format")


class UncertaintyChat(ChatSettings, BaseChatModel):
    """A chat model whose every answer tells how sure the model was.

    The scores are in `message.response_metadata["uncertainty"]`. Sampling parameters of vLLM can be
    given here and at each call; any other argument goes to the backend.
    """

    timeout: float | None = None
    """Seconds after which a call that is not streamed raises EngineTimeoutError."""
    max_retries: int = 0
    """How often a call that is not streamed is tried again where the engine failed."""
    streaming: bool = False
    """Whether `invoke` streams within, so that callbacks see the tokens as they come."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """Not needed: the engine runs in this program. Taken so that the class drops in."""

    @model_validator(mode="after")
    def _tell_version_of_uncertainty_chat(self) -> Self:
        self._add_version("uq-llm-integrations", __version__)
        if not self.chat_template:
            raise ConfigurationError("a chat model always uses its template; chat_template is True")
        if self.streaming and self.n > 1:
            raise ConfigurationError(f"n is {self.n}; with streaming=True it must be 1")
        if self.max_retries < 0:
            raise ConfigurationError(f"max_retries is {self.max_retries}; it must be 0 or more")
        return self

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Everything that an answer depends on: caches use it as their key."""
        return self._settings

    @property
    def _llm_type(self) -> str:
        return f"{self.generator_type}-uncertainty-chat"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = self.generator_type
        params["ls_model_name"] = kwargs.get("model") or self._backend.capabilities.model
        return params

    def _resolve_model_profile(self) -> ModelProfile:
        return profile_of(self._backend.capabilities, self.engine_args, self.reasoning_parser)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with tools that it may call, or must.

        `tool_choice` is 'auto', 'none', 'any' (also 'required', True) or the name of a tool; a call
        that must come follows the grammar of the tools, so that it is valid by construction.
        """
        formatted = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        return self.bind(tools=formatted, tool_choice=tool_choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return the model with answers that follow a schema: a pydantic class, TypedDict or dict.

        The schema is vLLM's grammar, strict in any case ('json_mode' asks for any JSON object), and
        the scores are those among the tokens that it allows. With `include_raw`, the message tells
        a score for each field: `response_metadata["uncertainty"]["fields"]`.
        """
        return structured(self, schema, method, include_raw=include_raw, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._backend.run(self._answer(messages, stop, kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await self._answer(messages, stop, kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with closing(self._backend.iterate(self._chunks(messages, stop, kwargs))) as chunks:
            for chunk in chunks:
                if run_manager:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with aclosing(self._chunks(messages, stop, kwargs)) as chunks:
            async for chunk in chunks:
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _stream_chat_model_events(
        self, messages: list[BaseMessage], *, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[Any]:
        chunks = self._stream(messages, run_manager=run_manager, **kwargs)
        return whole_events(chunks, run_manager)

    def _astream_chat_model_events(
        self, messages: list[BaseMessage], *, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        chunks = self._astream(messages, run_manager=run_manager, **kwargs)
        return awhole_events(chunks, run_manager)

    async def _answer(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> ChatResult:
        chatting = self._chatting(messages, stop, kwargs, retries=self.max_retries)
        try:
            async with asyncio.timeout(self.timeout):
                result, replies = await chatting.replies()
        except TimeoutError as error:
            raise EngineTimeoutError(f"no answer within {self.timeout} seconds") from error
        return chat_result(result, replies, self._backend.capabilities.model)

    async def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        chatting = self._chatting(messages, stop, kwargs)
        async with aclosing(chatting.pieces()) as pieces:
            async for piece in pieces:
                yield chat_chunk(piece, self._backend.capabilities.model)

    def _chatting(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
        retries: int = 0,
    ) -> Chatting:
        given = {name: kwargs[name] for name in _TURN if kwargs.get(name) is not None}
        bound, rest = self._bound({k: v for k, v in kwargs.items() if k not in _TURN})
        self._refuse_unknown(rest)
        if retries:
            persistent = RetryErrors(bound.strategy, stop=stop_after_attempt(retries + 1))
            bound = bound.model_copy(update={"strategy": persistent})
        return Chatting(bound, turn_of(messages, stop, **given))
