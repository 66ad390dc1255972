"""Predicting objects: the answer follows the class's schema, as vLLM's grammar."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeVar

import llama_index.core.instrumentation as instrument
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.instrumentation.events.llm import (
    LLMStructuredPredictEndEvent,
    LLMStructuredPredictStartEvent,
)
from llama_index.core.llms.llm import LLM
from llama_index.core.program.utils import create_flexible_model
from llama_index.core.prompts import BasePromptTemplate
from pydantic import BaseModel
from pydantic_core import from_json

from uq_llm_integrations.adapters.chat_settings import ChatSettings

Model = TypeVar("Model", bound=BaseModel)

dispatcher = instrument.get_dispatcher(__name__)


class StructuredPrediction(ChatSettings, LLM):
    """Structured prediction by one chat call, whose event has the scores of all fields.

    They are in `additional_kwargs["uncertainty"]["fields"]` of the call's response.
    """

    @dispatcher.span
    def structured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Return an object of the class."""
        messages = self._begun(output_cls, prompt, prompt_args)
        response = self.chat(messages, **_schema(output_cls), **(llm_kwargs or {}))
        return _ended(output_cls, response.message.content)

    @dispatcher.span
    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Return an object of the class."""
        messages = self._begun(output_cls, prompt, prompt_args)
        response = await self.achat(messages, **_schema(output_cls), **(llm_kwargs or {}))
        return _ended(output_cls, response.message.content)

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """Yield what there is of the object, and the whole of it in the end."""
        messages, content = self._get_messages(prompt, **prompt_args), None
        asked = _schema(output_cls) | (llm_kwargs or {})
        for response in self.stream_chat(messages, **asked):
            content = response.message.content
            yield from _so_far(output_cls, content)
        yield output_cls.model_validate_json(content or "")

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        """Return a generator of what there is of the object, and the whole of it in the end."""
        messages = self._get_messages(prompt, **prompt_args)
        asked = _schema(output_cls) | (llm_kwargs or {})

        async def growing() -> AsyncGenerator[Any, None]:
            content = None
            async for response in await self.astream_chat(messages, **asked):
                content = response.message.content
                for partial in _so_far(output_cls, content):
                    yield partial
            yield output_cls.model_validate_json(content or "")

        return growing()

    def _begun(
        self, output_cls: type[Model], prompt: BasePromptTemplate, arguments: dict[str, Any]
    ) -> list[ChatMessage]:
        dispatcher.event(
            LLMStructuredPredictStartEvent(
                output_cls=output_cls, template=prompt, template_args=arguments
            )
        )
        return self._get_messages(prompt, **arguments)


def _schema(output_cls: type[BaseModel]) -> dict[str, Any]:
    return {"response_schema": output_cls.model_json_schema()}


def _ended(output_cls: type[Model], content: str | None) -> Model:
    output = output_cls.model_validate_json(content or "")
    dispatcher.event(LLMStructuredPredictEndEvent(output=output))
    return output


def _so_far(output_cls: type[BaseModel], content: str | None) -> Generator[Any, None, None]:
    """Yield the object that an unfinished text tells, where it tells one."""
    try:
        fields = from_json(content or "", allow_partial=True)
    except ValueError:
        return
    if isinstance(fields, dict):
        yield create_flexible_model(output_cls)(**fields)
