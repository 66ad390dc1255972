"""LlamaIndex's classes, one for each kind of backend, from one implementation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

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
    ToolCallBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from uq_llm_integrations.adapters.backends import OnBoth, OnHuggingFace, OnVLLM
from uq_llm_integrations.adapters.chat import Chatting, ReplyPiece, Turn
from uq_llm_integrations.adapters.settings import refuse_unknown
from uq_llm_integrations.chat.reply import Reply
from uq_llm_integrations.llama_index.structured import StructuredPrediction
from uq_llm_integrations.llama_index.translate import (
    chat_message,
    chat_response,
    completion_response,
    conversation_of,
    log_probs,
    piece_kwargs,
    selections,
)

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

RESAMPLING: ContextVar[dict[str, Any]] = ContextVar("resampling", default={})  # noqa: B039  # never changed in place
"""Sampling parameters that whoever tries again wants for all calls within."""

_TURN = ("tools", "tool_choice", "response_schema")


class UncertaintyLLM(StructuredPrediction, FunctionCallingLLM):
    """A model whose every answer tells how sure the model was.

    The scores are in `response.additional_kwargs["uncertainty"]`, never on the message. Sampling
    parameters of vLLM can be given here and at each call; any other argument goes to the backend.
    `complete` puts its text into the chat template, unless it is `formatted` or `chat_template` is
    False.
    """

    @property
    def metadata(self) -> LLMMetadata:
        """What the engine can do; asking for it starts the engine where nothing else tells."""
        return LLMMetadata(
            context_window=self._context_window(),
            num_output=self.max_tokens or -1,
            is_chat_model=self.chat_template,
            is_function_calling_model=True,
            model_name=self._backend.capabilities.model,
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class."""
        return cls.__name__

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the settings as plain data; events carry it."""
        return {"class_name": self.class_name(), **self._settings}

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
        choice = "required" if tool_required else "auto"
        return {"messages": messages, "tools": specs, "tool_choice": choice, **kwargs}

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Keep one call only where no more are allowed."""
        calls = [one for one in response.message.blocks if isinstance(one, ToolCallBlock)]
        if not allow_parallel_tool_calls and calls:
            others = [one for one in response.message.blocks if one not in calls[1:]]
            response.message.blocks = others
        return response

    async def _chat(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        result, (first, *others) = await self._chatting(kwargs, messages).replies()
        return chat_response(first, result, others, self._backend.capabilities.model)

    async def _chat_stream(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]
    ) -> AsyncGenerator[ChatResponse, None]:
        async for piece, whole, logprobs in _growing(self._chatting(kwargs, messages).pieces()):
            yield ChatResponse(
                message=chat_message(whole),
                delta=piece.part.content,
                additional_kwargs=piece_kwargs(piece),
                logprobs=log_probs(logprobs),
            )

    async def _complete(
        self, prompt: str, formatted: bool, kwargs: dict[str, Any]
    ) -> CompletionResponse:
        chatting = self._chatting(kwargs, **self._asked_text(prompt, formatted))
        result, (first, *others) = await chatting.replies()
        return completion_response(first, result, others, self._backend.capabilities.model)

    async def _complete_stream(
        self, prompt: str, formatted: bool, kwargs: dict[str, Any]
    ) -> AsyncGenerator[CompletionResponse, None]:
        chatting = self._chatting(kwargs, **self._asked_text(prompt, formatted))
        async for piece, whole, logprobs in _growing(chatting.pieces()):
            yield CompletionResponse(
                text=whole.content,
                delta=piece.part.content,
                additional_kwargs=piece_kwargs(piece),
                logprobs=log_probs(logprobs),
            )

    def _context_window(self) -> int:
        known = self._backend.capabilities.context_length or self.engine_args.get("max_model_len")
        if known is None:
            self._backend.run(self._backend.encode("?"))  # any use starts the engine
            known = self._backend.capabilities.context_length
        return int(known or 0)

    def _asked_text(self, prompt: str, formatted: bool) -> dict[str, Any]:
        if formatted or not self.chat_template:
            return {"prompt": prompt}
        return {"messages": [ChatMessage(role=MessageRole.USER, content=prompt)]}

    def _chatting(
        self,
        kwargs: dict[str, Any],
        messages: Sequence[ChatMessage] | None = None,
        prompt: str | None = None,
    ) -> Chatting:
        given = {name: kwargs[name] for name in _TURN if kwargs.get(name) is not None}
        stop = kwargs.get("stop") or ()
        left = {k: v for k, v in kwargs.items() if k not in (*_TURN, "stop")}
        bound, rest = self._bound(left | RESAMPLING.get())
        refuse_unknown(rest)
        turn = Turn(
            conversation_of(messages or (), given.get("tools", ())),
            (stop,) if isinstance(stop, str) else tuple(stop),
            given.get("tool_choice", "auto"),
            given.get("response_schema"),
            prompt,
        )
        return Chatting(bound, turn)


async def _growing(
    stream: AsyncGenerator[ReplyPiece, None],
) -> AsyncIterator[tuple[ReplyPiece, Reply, list[dict[str, Any]] | None]]:
    """Yield each piece with the reply so far and the log-probabilities so far."""
    content = reasoning = ""
    logprobs: list[dict[str, Any]] | None = None
    async with aclosing(stream) as pieces:
        async for piece in pieces:
            content += piece.part.content
            reasoning += piece.part.reasoning
            if piece.logprobs is not None:
                logprobs = (logprobs or []) + piece.logprobs
            whole = piece.whole.reply if piece.whole else Reply(content, reasoning or None)
            yield piece, whole, logprobs


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
