"""LlamaIndex's classes, one for each kind of backend, from one implementation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from uq_llm_integrations.chat.exchange import Chatting
from uq_llm_integrations.faces import OnBoth, OnHuggingFace, OnVLLM
from uq_llm_integrations.llama_index.fields import arguments_of, plain_fields
from uq_llm_integrations.llama_index.messages import TURN, selections, turn_of
from uq_llm_integrations.llama_index.structured import StructuredPrediction
from uq_llm_integrations.llama_index.translate import (
    chat_piece,
    chat_response,
    completion_piece,
    completion_response,
    growing,
)

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

RESAMPLING: ContextVar[dict[str, Any]] = ContextVar("resampling", default={})  # noqa: B039  # never changed in place
"""Sampling parameters that whoever tries again wants for all calls within."""


class UncertaintyLLM(StructuredPrediction, FunctionCallingLLM):
    """A model whose every answer tells how sure the model was.

    The scores are in `response.additional_kwargs["uncertainty"]`, never on the message. In a stream
    each response has the scores (with `token_scores`) and log-probabilities of what it adds, and
    the last one those of the whole. `raw["candidates"]` has all candidates, the best first.

    Sampling parameters of vLLM can be given here and at each call; any other argument goes to the
    backend. `complete` puts its text into the chat template, unless it is `formatted`. With
    `chat_template=False`, `completion_to_prompt` and `messages_to_prompt` write the prompt instead,
    and functions cannot be called.
    """

    @property
    def metadata(self) -> LLMMetadata:
        """What the engine can do; asking for it starts the engine where nothing else tells."""
        return LLMMetadata(
            context_window=self._context_window(),
            num_output=self.max_tokens or -1,
            is_chat_model=self.chat_template,
            is_function_calling_model=self.chat_template,
            model_name=self._backend.capabilities.model,
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class."""
        return cls.__name__

    def to_payload(self) -> dict[str, Any]:
        """Return what events tell of the model, without starting its engine."""
        settings = {name: one for name, one in self._settings.items() if name != "engine_args"}
        return {"class_name": self.class_name(), **settings}

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the fields as plain data, as `from_dict` takes them; the backend is left out."""
        return plain_fields(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Return the model that `to_dict` told; `kwargs` take the place of what it could not tell.

        Raises ConfigurationError where something is missing that cannot be told as plain data, such
        as a strategy.
        """
        return cls(**arguments_of(data, kwargs))

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the model's next message."""
        return self._backend.run(self._chat(messages, kwargs))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the model's next message."""
        return await self._chat(messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Yield the message as it grows; the last one has the scores."""
        return self._backend.iterate(self._chat_stream(messages, kwargs))

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Yield the message as it grows; the last one has the scores."""
        return self._chat_stream(messages, kwargs)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return the model's answer to a text."""
        return self._backend.run(self._complete(prompt, formatted, kwargs))

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Return the model's answer to a text."""
        return await self._complete(prompt, formatted, kwargs)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """Yield the answer as it grows; the last one has the scores."""
        return self._backend.iterate(self._complete_stream(prompt, formatted, kwargs))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Yield the answer as it grows; the last one has the scores."""
        return self._complete_stream(prompt, formatted, kwargs)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the calls that the model asks for; ValueError where there are none, if wanted."""
        found = selections(response.message)
        if not found and error_on_no_tool_call:
            raise ValueError(f"the model called no tool, it said: {response.message.content!r}")
        return found

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        messages = [*(chat_history or ()), *([user_msg] if user_msg else ())]
        specs = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        choice = kwargs.pop("tool_choice", None) or ("required" if tool_required else "auto")
        return {
            "messages": messages,
            "tools": specs,
            "tool_choice": choice,
            "allow_parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    async def _chat(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        result, replies = await self._chatting(kwargs, messages=messages).replies()
        return chat_response(result, replies, self._backend.capabilities.model, _calls(kwargs))

    async def _chat_stream(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]
    ) -> AsyncGenerator[ChatResponse, None]:
        model = self._backend.capabilities.model
        chatting = self._chatting(kwargs, messages=messages)
        async with aclosing(growing(chatting.pieces())) as grown:
            async for piece, reply in grown:
                yield chat_piece(piece, reply, model, _calls(kwargs))

    async def _complete(
        self, prompt: str, formatted: bool, kwargs: dict[str, Any]
    ) -> CompletionResponse:
        result, replies = await self._chatting(kwargs, prompt, formatted).replies()
        return completion_response(result, replies, self._backend.capabilities.model)

    async def _complete_stream(
        self, prompt: str, formatted: bool, kwargs: dict[str, Any]
    ) -> AsyncGenerator[CompletionResponse, None]:
        model = self._backend.capabilities.model
        chatting = self._chatting(kwargs, prompt, formatted)
        async with aclosing(growing(chatting.pieces())) as grown:
            async for piece, reply in grown:
                yield completion_piece(piece, reply, model)

    def _chatting(
        self,
        kwargs: dict[str, Any],
        prompt: str | None = None,
        formatted: bool = False,
        messages: Sequence[ChatMessage] | None = None,
    ) -> Chatting:
        call = {name: one for name, one in kwargs.items() if name not in TURN}
        bound, rest = self._bound(call | RESAMPLING.get())
        self._refuse_unknown(rest)
        if messages is None:
            assert prompt is not None
            messages = [ChatMessage(role=MessageRole.USER, content=prompt)]
            written = prompt if formatted else bound._written(self.completion_to_prompt, prompt)
        else:
            written = bound._written(self.messages_to_prompt, messages)
        return Chatting(bound, turn_of(messages, kwargs, written))

    def _context_window(self) -> int:
        known = self._backend.capabilities.context_length or self.engine_args.get("max_model_len")
        if known is None:
            self._backend.run(self._backend.encode("?"))  # any use starts the engine
            known = self._backend.capabilities.context_length
        return int(known or 0)

    def _written(self, writer: Callable[[Any], str] | None, asked: Any) -> str | None:
        """Return the prompt as LlamaIndex writes it, None where the chat template does."""
        return None if self.chat_template or writer is None else writer(asked)


def _calls(kwargs: dict[str, Any]) -> int | None:
    """Return how many calls a reply may have, None for any number."""
    return 1 if kwargs.get("allow_parallel_tool_calls") is False else None


class VLLMUncertaintyLLM(UncertaintyLLM, OnVLLM):
    """A model on vLLM.

    Arguments beside those of all classes go to the engine (`gpu_memory_utilization=0.5`,
    `tensor_parallel_size=2`, ...). It starts on first use and is shared by all objects with the
    same engine arguments.
    """


class HuggingFaceUncertaintyLLM(UncertaintyLLM, OnHuggingFace):
    """A model on Hugging Face transformers.

    Arguments beside those of all classes go to `HuggingFaceBackend`, and from there to
    `from_pretrained`. Answers cannot be held to a schema, nor tool calls be forced.
    """


class HybridUncertaintyLLM(UncertaintyLLM, OnBoth):
    """A model that generates on vLLM and looks inside the model to score, see `mode`."""
