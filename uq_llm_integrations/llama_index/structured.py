"""Predicting objects: the answer follows the class's schema, as vLLM's grammar."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from typing import Any, TypeVar

import llama_index.core.instrumentation as instrument
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.llm import LLM
from llama_index.core.program.utils import create_flexible_model
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel
from pydantic_core import from_json

from uq_llm_integrations.errors import HighUncertaintyError
from uq_llm_integrations.faces import ModelFace
from uq_llm_integrations.records import JsonObject

Model = TypeVar("Model", bound=BaseModel)

dispatcher = instrument.get_dispatcher(__name__)


class StructuredPrediction(ModelFace, LLM):
    """Structured prediction by one chat call, whose event has the scores of all fields.

    They are in `additional_kwargs["uncertainty"]["fields"]` of the call's response.
    """

    @dispatcher.span
    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: JsonObject | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Return an object of the class, by a grammar unless `pydantic_program_mode` is set.

        Raises HighUncertaintyError where the model abstains, since no object can say so.
        """
        if not self._has_grammar:
            predicted: Model = super().structured_predict(
                output_cls, prompt, llm_kwargs, **prompt_args
            )
            return predicted
        messages = self._begun(output_cls, prompt, prompt_args)
        return _ended(output_cls, self.chat(messages, **_call_arguments(output_cls, llm_kwargs)))

    @dispatcher.span
    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: JsonObject | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Return an object of the class, as `structured_predict` does."""
        if not self._has_grammar:
            predicted: Model = await super().astructured_predict(
                output_cls, prompt, llm_kwargs, **prompt_args
            )
            return predicted
        messages = self._begun(output_cls, prompt, prompt_args)
        return _ended(
            output_cls, await self.achat(messages, **_call_arguments(output_cls, llm_kwargs))
        )

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: JsonObject | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """Yield what there is of the object, and the whole of it in the end."""
        if not self._has_grammar:
            yield from super()._structured_stream_call(
                output_cls,
                prompt,  # type: ignore[arg-type]  # LlamaIndex itself gives it chat templates
                llm_kwargs,
                **prompt_args,
            )
            return
        messages, growing = self._get_messages(prompt, **prompt_args), _Growing(output_cls)
        for response in self.stream_chat(messages, **_call_arguments(output_cls, llm_kwargs)):
            yield from growing.so_far(response)
        yield growing.whole()

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: JsonObject | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        """Return a generator of what there is of the object, and the whole of it in the end."""
        if not self._has_grammar:
            return await super()._structured_astream_call(
                output_cls,
                prompt,  # type: ignore[arg-type]  # LlamaIndex itself gives it chat templates
                llm_kwargs,
                **prompt_args,
            )
        messages, growing = self._get_messages(prompt, **prompt_args), _Growing(output_cls)
        arguments = _call_arguments(output_cls, llm_kwargs)

        async def read() -> AsyncGenerator[Any, None]:
            async for response in await self.astream_chat(messages, **arguments):
                for partial in growing.so_far(response):
                    yield partial
            yield growing.whole()

        return read()

    @property
    def _has_grammar(self) -> bool:
        return self.pydantic_program_mode is PydanticProgramMode.DEFAULT

    def _begun(
        self, output_cls: type[Model], prompt: BasePromptTemplate, arguments: JsonObject
    ) -> list[ChatMessage]:
        dispatcher.event(
            LLMStructuredPredictStartEvent(
                output_cls=output_cls, template=prompt, template_args=arguments
            )
        )
        return self._get_messages(prompt, **arguments)


class _Growing:
    """The object of a stream, as far as it has come."""

    def __init__(self, output_cls: type[BaseModel]) -> None:
        self._class, self._partial = output_cls, create_flexible_model(output_cls)
        self._last: ChatResponse | None = None

    def so_far(self, response: ChatResponse) -> Iterator[Any]:
        """Yield the object that an unfinished text has, where it has one."""
        self._last = response
        try:
            fields = from_json(response.message.content or "", allow_partial="trailing-strings")
        except ValueError:
            return
        if isinstance(fields, dict):
            yield self._partial(**fields)

    def whole(self) -> BaseModel:
        """Return the finished object."""
        assert self._last is not None
        return _read(self._class, self._last)


def _call_arguments(
    output_cls: type[BaseModel], llm_kwargs: Mapping[str, Any] | None
) -> JsonObject:
    """Return the arguments of the chat call; those that choose tools mean nothing here."""
    given = {name: one for name, one in (llm_kwargs or {}).items() if name not in _OF_TOOLS}
    return {"response_schema": output_cls.model_json_schema(), **given}


_OF_TOOLS = ("tool_required", "tool_choice", "allow_parallel_tool_calls")


def _ended(output_cls: type[Model], response: ChatResponse) -> Model:
    output = _read(output_cls, response)
    dispatcher.event(LLMStructuredPredictEndEvent(output=output))
    return output


def _read(output_cls: type[Model], response: ChatResponse) -> Model:
    metadata = response.additional_kwargs["uncertainty"]
    if metadata["decision"] == "abstained":
        raise HighUncertaintyError(
            metadata["condition"], text=metadata["original_text"], uncertainty=metadata
        )
    return output_cls.model_validate_json(response.message.content or "")
