"""LangChain's chat classes, one for each kind of backend, from one implementation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, ClassVar, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import Field, SecretStr, model_validator

from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.faces import HuggingFaceFace, HybridFace, VLLMFace
from uq_llm_integrations.identity import Verbatim, canonical
from uq_llm_integrations.langchain.agent_objects import (
    OBJECT_DUE,
    answers_by_schema,
    check_object,
)  # fmt: skip  # a list of names
from uq_llm_integrations.langchain.closed_streams import (
    areported,
    closed_reporter,
    noted_reader,
    reported,
)
from uq_llm_integrations.langchain.events import achat_events, chat_events
from uq_llm_integrations.langchain.messages import (
    chat_chunk,
    chat_result,
    openai_tools,
    turn_of,
    unscored,
)
from uq_llm_integrations.langchain.saving import SavedFace
from uq_llm_integrations.langchain.structured import Method, structured
from uq_llm_integrations.records import Result
from uq_llm_integrations.version import __version__

_TURN = (
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "continue_final_message",
    "raises_abstention",
)
"""Arguments of a call that say what is sent, rather than how the answer is sampled."""


class UncertaintyChat(SavedFace, BaseChatModel):
    """A chat model that returns with every answer how sure the model was.

    The scores are in `message.response_metadata["uncertainty"]`. Sampling parameters of vLLM and
    all options can be given here and at each call; any other argument goes to the backend. At a
    call, or bound, `continue_final_message=True` has the model go on with a last AIMessage; its
    answer is what it adds.

    Example:
        >>> from uq_llm_integrations import ScriptedBackend
        >>> chat = ChatVLLMUncertainty(backend=ScriptedBackend(["Paris"]))
        >>> message = chat.invoke("Capital of France?")
        >>> message.content, message.response_metadata["uncertainty"]["decision"]
        ('Paris', 'accepted')
    """

    chat_template: bool = True
    streaming: bool = False
    """Whether `invoke` streams within, so that callbacks see the tokens as they come."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """That of the servers at `base_url`. Elsewhere the model runs in this program, which needs
    none; it is taken so that the class drops in."""

    @model_validator(mode="after")
    def _check_uncertainty_chat(self) -> Self:
        self._add_version("uq-llm-integrations", __version__)
        if self.profile is None:  # LangChain asks before there is a backend
            self.__dict__["profile"] = self._resolve_model_profile()
        if not self.chat_template:
            raise ConfigurationError("a chat model always uses its template; chat_template is True")
        if self.streaming and self.n > 1:
            raise ConfigurationError(f"n is {self.n}; with streaming=True it must be 1")
        return self

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self.core.identity

    @property
    def _llm_type(self) -> str:
        return f"{self.generator_type}-uncertainty-chat"

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Return what caches go by: all that an answer depends on beside the messages."""
        bound, rest = self.bound(kwargs)
        given = {**rest, "stop": stop}.items()
        call = {name: Verbatim(one) for name, one in given if one not in (None, [], ())}
        streams = self.streaming and self.stop_if is not None  # only a stream is ended by it
        return canonical([self._llm_type, bound.core.identity, call, streams])

    def _generate_with_cache(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> ChatResult:
        return super()._generate_with_cache(unscored(messages), *args, **kwargs)

    async def _agenerate_with_cache(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> ChatResult:
        return await super()._agenerate_with_cache(unscored(messages), *args, **kwargs)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = self.generator_type
        params["ls_model_name"] = kwargs.get("model") or self.model_name
        return params

    def _resolve_model_profile(self) -> ModelProfile:
        profile = ModelProfile(
            text_inputs=True,
            text_outputs=True,
            tool_calling=True,
            tool_choice=True,
            tool_call_streaming=True,
            reasoning_output=self.reasoning_parser is not None,
            # Agents take it to mean an answer by schema while tools are bound, for which not every
            # tool parser has a grammar; without the claim they make the schema a tool.
            structured_output=False,
            temperature=True,
        )
        if context := self.known_context_length():
            profile["max_input_tokens"] = context
        return profile

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with tools that it may call, or must.

        `tool_choice` is 'auto', 'none', 'any' (also 'required', True) or the name of a tool; a call
        that must come follows the grammar of the tools, so that it is valid by construction. With
        `parallel_tool_calls=False` there is one call at most. With a `response_format` as well, the
        model calls tools or answers by the schema. An agent's answer by schema has no place for an
        abstention, which raises HighUncertaintyError. Raises InvalidRequestError for a tool that
        only its provider runs.
        """
        formatted = openai_tools(tools, strict)
        if answers_by_schema(tools, tool_choice, kwargs):
            kwargs[OBJECT_DUE] = True
        if parallel_tool_calls is not None:
            kwargs["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(tools=[*formatted], tool_choice=tool_choice, **kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, by the model's own tokenizer."""
        own = self.custom_get_token_ids
        return own(text) if own else self.token_ids(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Return how many tokens the model is given for messages, in its chat template.

        Those of the tools are included. `trim_messages(token_counter=chat)` counts by it.
        """
        if self.custom_get_token_ids:
            return super().get_num_tokens_from_messages(messages, tools)
        return self.core.count_tokens(turn_of(messages, None, tools))

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

        The schema is vLLM's grammar, strict in any case ('json_mode' allows any JSON object), and
        the scores are those among the tokens that it allows. Raises HighUncertaintyError where the
        model abstains, since no object can say so. With `include_raw`, that is the `parsing_error`,
        and the message has a score for each field: `response_metadata["uncertainty"]["fields"]`.
        """
        return structured(self, schema, method, include_raw=include_raw, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self.core.backend.run(self._answer(messages, stop, kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await self._answer(messages, stop, kwargs)

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """Yield the message piece by piece; handlers hear of a stream that is closed early."""
        known, report = noted_reader(config, self.callbacks)
        yield from reported(super().stream(input, known, **kwargs), report)

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """Yield what `stream` does."""
        known, report = noted_reader(config, self.callbacks)
        stream = areported(super().astream(input, known, **kwargs), report)
        async with closed_at_end(stream) as pieces:
            async for piece in pieces:
                yield piece

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        pieces = self._chunks(messages, stop, kwargs, closed_reporter(run_manager))
        with closing(self.core.backend.iterate(pieces)) as chunks:
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
        pieces = self._chunks(messages, stop, kwargs, closed_reporter(run_manager))
        async with closed_at_end(pieces) as chunks:
            async for chunk in chunks:
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _stream_chat_model_events(
        self, messages: list[BaseMessage], *, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[Any]:
        chunks = self._stream(messages, run_manager=run_manager, **kwargs)
        return chat_events(chunks, run_manager)

    def _astream_chat_model_events(
        self, messages: list[BaseMessage], *, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        chunks = self._astream(messages, run_manager=run_manager, **kwargs)
        return achat_events(chunks, run_manager)

    async def _answer(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> ChatResult:
        is_object = kwargs.pop(OBJECT_DUE, False)
        turn = {name: kwargs.pop(name) for name in _TURN if name in kwargs}
        answer = await self.core.achat(turn_of(messages, stop, **turn), **kwargs)
        if is_object:
            check_object(answer.result, answer.uncertainty)
        return chat_result(answer, self.model_name)

    async def _chunks(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
        on_closed: Callable[[Result], None] | None = None,
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        is_object = kwargs.pop(OBJECT_DUE, False)
        turn = {name: kwargs.pop(name) for name in _TURN if name in kwargs}
        given = turn_of(messages, stop, **turn)
        stream = self.core.astream(given, on_closed=on_closed, **kwargs)
        async with closed_at_end(stream) as pieces:
            async for piece in pieces:
                if is_object and piece.result and piece.whole:
                    check_object(piece.result, piece.whole.uncertainty)
                yield chat_chunk(piece, self.model_name)


class ChatVLLMUncertainty(UncertaintyChat, VLLMFace):
    """A chat model on vLLM.

    Arguments beside those of all chat models go to the engine (`gpu_memory_utilization=0.5`,
    `tensor_parallel_size=2`, ...). It starts on first use and is shared by all objects with the
    same engine arguments. With `base_url`, the model is on a server, or on several:

    Example:
        chat = ChatVLLMUncertainty(base_url="http://localhost:8000/v1", api_key="...")
    """

    backend_fields: ClassVar[frozenset[str]] = VLLMFace.backend_fields - {"api_key"}  # it drops in


class ChatHuggingFaceUncertainty(UncertaintyChat, HuggingFaceFace):
    """A chat model on Hugging Face transformers.

    Arguments beside those of all chat models go to `HuggingFaceBackend`, and from there to
    `from_pretrained`. Answers cannot be held to a schema, nor tool calls be forced.
    """


class ChatHybridUncertainty(UncertaintyChat, HybridFace):
    """A chat model that generates on vLLM and looks inside the model to score.

    `mode` says where activations come from: `shared`, the engine's own weights; `resident`, a
    second copy of the model; `sequential`, a copy that is loaded while the engine sleeps.
    """
