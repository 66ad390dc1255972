"""LlamaIndex's classes, one for each kind of backend, from one implementation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
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
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from pydantic import SerializationInfo, SerializerFunctionWrapHandler, model_serializer

from uq_llm_integrations.backends.streams import closed_at_end
from uq_llm_integrations.chat.objects import missing_call
from uq_llm_integrations.chat.reply import Turn
from uq_llm_integrations.faces import HuggingFaceFace, HybridFace, VLLMFace
from uq_llm_integrations.llama_index.events import note_model, report_closed
from uq_llm_integrations.llama_index.messages import (
    TURN,
    chat_piece,
    chat_response,
    completion_piece,
    completion_response,
    joined,
    openai_tool,
    selections,
    turn_of,
)
from uq_llm_integrations.llama_index.program_calls import (
    REQUIRED,
    awith_call,
    is_of_program,
    with_call,
)  # fmt: skip  # a list of names
from uq_llm_integrations.llama_index.react_calls import check_action
from uq_llm_integrations.llama_index.serialization import LEFT, arguments_of, plain_fields
from uq_llm_integrations.llama_index.structured import StructuredPrediction
from uq_llm_integrations.saved import with_left_behind

if TYPE_CHECKING:
    from llama_index.core.tools.types import BaseTool

RESAMPLING: ContextVar[dict[str, Any]] = ContextVar("resampling", default={})  # noqa: B039  # never changed in place
"""Options that whoever tries again wants for all calls within."""


class UncertaintyLLM(StructuredPrediction, FunctionCallingLLM):
    """A model that returns with every answer how sure the model was.

    The scores are in `response.additional_kwargs["uncertainty"]`, never on the message. In a stream
    each response has the scores (with `token_scores`) and log-probabilities of what it adds, and
    the last one those of the whole. `raw["candidates"]` has all candidates, the best first.

    Sampling parameters of vLLM and all options can be given here and at each call; any other
    argument goes to the backend. `complete` puts its text into the chat template, unless it is
    `formatted`. With `chat_template=False`, `completion_to_prompt` and `messages_to_prompt` write
    the prompt instead, and functions cannot be called.

    Example:
        >>> from uq_llm_integrations import ScriptedBackend
        >>> llm = VLLMUncertaintyLLM(backend=ScriptedBackend(["Paris"]))
        >>> response = llm.complete("Capital of France?")
        >>> response.text, response.additional_kwargs["uncertainty"]["decision"]
        ('Paris', 'accepted')
    """

    chat_template: bool = True

    def __eq__(self, other: object) -> bool:
        """Compare all fields but the callbacks, which a copy has of its own."""
        if type(self) is not type(other):
            return NotImplemented
        names = type(self).model_fields.keys() - {"callback_manager"}
        return all(getattr(self, name) == getattr(other, name) for name in names)

    @property
    def metadata(self) -> LLMMetadata:
        """What the engine can do; reading it starts the engine where nothing else has the size."""
        return LLMMetadata(
            context_window=self._context_window(),
            num_output=self.max_tokens or -1,
            is_chat_model=self.chat_template,
            is_function_calling_model=self.chat_template,
            model_name=self.model_name,
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class."""
        return cls.__name__

    def to_payload(self) -> dict[str, Any]:
        """Return the options for events, without starting the engine."""
        return {"class_name": self.class_name(), **self.core.identity}

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the fields as plain data, as `from_dict` takes them."""
        return plain_fields(self)

    @model_serializer(mode="wrap")
    def custom_model_dump(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        """Return the fields, and what distinguishes those that are no plain data.

        The cache of an ingestion goes by it.
        """
        plain = plain_fields(self)
        return {**handler(self), **{name: plain[name] for name in LEFT if name in plain}}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Return the model of `to_dict`; `kwargs` take the place of what is no plain data.

        Raises ConfigurationError where something is missing that is no plain data, such as a
        ready backend.
        """
        return cls(**arguments_of(data, kwargs))

    def __getstate__(self) -> dict[Any, Any]:
        """Return what is pickled; it always can be, and never at the cost of this object.

        LlamaIndex takes from an extractor whatever fails to be pickled. What cannot be is missed
        with a ConfigurationError where the pickled model is used.
        """
        state = super().__getstate__()
        return {**state, "__dict__": with_left_behind(state["__dict__"])}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        if self.callback_manager is None:
            self.callback_manager = CallbackManager([])

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the model's next message."""
        return self.core.backend.run(self._chat(messages, kwargs))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Return the model's next message."""
        return await self._chat(messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Yield the message as it grows; the last one has the scores."""
        return self.core.backend.iterate(self._chat_stream(messages, kwargs))

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Yield the message as it grows; the last one has the scores."""
        return self._chat_stream(messages, kwargs)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Return the model's answer to a text."""
        return self.core.backend.run(self._complete(prompt, formatted, kwargs))

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
        return self.core.backend.iterate(self._complete_stream(prompt, formatted, kwargs))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Yield the answer as it grows; the last one has the scores."""
        return self._complete_stream(prompt, formatted, kwargs)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the requested calls.

        Raises IncompleteAnswerError where one was cut and InvalidAnswerError, a ValueError, where
        its arguments are no object; if wanted, where there are none, too, or HighUncertaintyError
        where the model abstains.
        """
        given = response.additional_kwargs
        reason, uncertainty = given.get("finish_reason"), given.get("uncertainty", {})
        found = selections(response.message, reason, uncertainty)
        if not found and error_on_no_tool_call:
            said = response.message.content or ""
            raise missing_call(None, said, reason, uncertainty)
        return found

    def stream_chat_with_tools(
        self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any
    ) -> ChatResponseGen:
        """Yield the message as it grows; raise at the end where a program needs a call of it."""
        if not is_of_program(tools):
            return super().stream_chat_with_tools(tools, *args, **kwargs)
        return with_call(super().stream_chat_with_tools(tools, *args, **REQUIRED | kwargs))

    async def astream_chat_with_tools(
        self, tools: Sequence[BaseTool], *args: Any, **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """Yield what `stream_chat_with_tools` does."""
        if not is_of_program(tools):
            return await super().astream_chat_with_tools(tools, *args, **kwargs)
        given = REQUIRED | kwargs
        return awith_call(await super().astream_chat_with_tools(tools, *args, **given))

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
        specs = [openai_tool(tool) for tool in tools]
        choice = kwargs.pop("tool_choice", None) or ("required" if tool_required else "auto")
        return {
            "messages": messages,
            "tools": specs,
            "tool_choice": choice,
            "allow_parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    async def _chat(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        turn = self._chat_turn(messages, kwargs)
        answer = await note_model(self.core).achat(turn, **_options(kwargs))
        check_action(messages, answer.replies[0])
        return chat_response(answer, self.model_name)

    async def _chat_stream(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]
    ) -> AsyncGenerator[ChatResponse, None]:
        turn, options = self._chat_turn(messages, kwargs), _options(kwargs)
        pieces = note_model(self.core).astream(turn, on_closed=report_closed, **options)
        async with closed_at_end(joined(pieces)) as grown:
            async for piece, reply in grown:
                if piece.whole:
                    check_action(messages, piece.whole)
                yield chat_piece(piece, reply, self.model_name)

    async def _complete(
        self, prompt: str, formatted: bool, kwargs: dict[str, Any]
    ) -> CompletionResponse:
        turn = self._completion_turn(prompt, formatted, kwargs)
        answer = await note_model(self.core).achat(turn, **_options(kwargs))
        return completion_response(answer, self.model_name)

    async def _complete_stream(
        self, prompt: str, formatted: bool, kwargs: dict[str, Any]
    ) -> AsyncGenerator[CompletionResponse, None]:
        turn = self._completion_turn(prompt, formatted, kwargs)
        pieces = note_model(self.core).astream(turn, on_closed=report_closed, **_options(kwargs))
        async with closed_at_end(joined(pieces)) as grown:
            async for piece, reply in grown:
                yield completion_piece(piece, reply, self.model_name)

    def _completion_turn(self, prompt: str, formatted: bool, kwargs: dict[str, Any]) -> Turn:
        written = prompt if formatted else None
        if not formatted and not self._has_template(kwargs) and self.completion_to_prompt:
            written = self.completion_to_prompt(prompt)
        return turn_of([ChatMessage(role=MessageRole.USER, content=prompt)], kwargs, written)

    def _chat_turn(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Turn:
        write = None if self._has_template(kwargs) else self.messages_to_prompt
        return turn_of(messages, kwargs, write(messages) if write else None)

    def _has_template(self, kwargs: dict[str, Any]) -> bool:
        return bool(kwargs.get("chat_template", self.chat_template))

    def _context_window(self) -> int:
        if self.known_context_length() is None:
            self.core.backend.run(self.core.backend.encode("?"))  # any use starts the engine
        return int(self.known_context_length() or 0)


def _options(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return a call's options; what says what is sent, rather than how, is in the turn."""
    return {name: one for name, one in kwargs.items() if name not in TURN} | RESAMPLING.get()


class VLLMUncertaintyLLM(UncertaintyLLM, VLLMFace):
    """A model on vLLM.

    Arguments beside those of all classes go to the engine (`gpu_memory_utilization=0.5`,
    `tensor_parallel_size=2`, ...). It starts on first use and is shared by all objects with the
    same engine arguments.
    """


class HuggingFaceUncertaintyLLM(UncertaintyLLM, HuggingFaceFace):
    """A model on Hugging Face transformers.

    Arguments beside those of all classes go to `HuggingFaceBackend`, and from there to
    `from_pretrained`. Answers cannot be held to a schema, nor tool calls be forced.
    """


class HybridUncertaintyLLM(UncertaintyLLM, HybridFace):
    """A model that generates on vLLM and looks inside the model to score, see `mode`."""
