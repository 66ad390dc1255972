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
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel

from uq_llm_integrations.faces import ModelFace
from uq_llm_integrations.llama_index.due_object import MODES, DueObject
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

        Raises HighUncertaintyError where the model abstains, since no object can say so, and
        IncompleteAnswerError where the answer ended before the object did.
        """
        if not self._predicts_itself:
            predicted: Model = super().structured_predict(
                output_cls, prompt, llm_kwargs, **prompt_args
            )
            return predicted
        due = DueObject(output_cls, self.pydantic_program_mode)
        messages = self._begun(due, output_cls, prompt, prompt_args)
        return _ended(due.read(self.chat(messages, **due.arguments(llm_kwargs))))

    @dispatcher.span
    async def astructured_predict(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: JsonObject | None = None,
        **prompt_args: Any,
    ) -> Model:
        """Return an object of the class, as `structured_predict` does."""
        if not self._predicts_itself:
            predicted: Model = await super().astructured_predict(
                output_cls, prompt, llm_kwargs, **prompt_args
            )
            return predicted
        due = DueObject(output_cls, self.pydantic_program_mode)
        messages = self._begun(due, output_cls, prompt, prompt_args)
        return _ended(due.read(await self.achat(messages, **due.arguments(llm_kwargs))))

    def _structured_stream_call(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: JsonObject | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """Yield what there is of the object, and the whole of it in the end."""
        if not self._predicts_itself:
            yield from super()._structured_stream_call(
                output_cls,
                prompt,  # type: ignore[arg-type]  # LlamaIndex itself gives it chat templates
                llm_kwargs,
                **prompt_args,
            )
            return
        due = DueObject(output_cls, self.pydantic_program_mode)
        messages = self._get_messages(due.prompt(prompt), **prompt_args)
        for response in self.stream_chat(messages, **due.arguments(llm_kwargs)):
            yield from due.grown(response)
        yield due.whole()

    async def _structured_astream_call(
        self,
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        llm_kwargs: JsonObject | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        """Return a generator of what there is of the object, and the whole of it in the end."""
        if not self._predicts_itself:
            return await super()._structured_astream_call(
                output_cls,
                prompt,  # type: ignore[arg-type]  # LlamaIndex itself gives it chat templates
                llm_kwargs,
                **prompt_args,
            )
        due = DueObject(output_cls, self.pydantic_program_mode)
        messages = self._get_messages(due.prompt(prompt), **prompt_args)
        arguments = due.arguments(llm_kwargs)

        async def read() -> AsyncGenerator[Any, None]:
            async for response in await self.astream_chat(messages, **arguments):
                for partial in due.grown(response):
                    yield partial
            yield due.whole()

        return read()

    @property
    def _predicts_itself(self) -> bool:
        """Whether the mode is one of this package's; LlamaIndex has programs for the others."""
        mode = self.pydantic_program_mode
        is_completion = mode is PydanticProgramMode.LLM and not self.chat_template
        return mode in MODES and not is_completion

    def _begun(
        self,
        due: DueObject[Model],
        output_cls: type[Model],
        prompt: BasePromptTemplate,
        arguments: JsonObject,
    ) -> list[ChatMessage]:
        dispatcher.event(
            LLMStructuredPredictStartEvent(
                output_cls=output_cls, template=prompt, template_args=arguments
            )
        )
        return self._get_messages(due.prompt(prompt), **arguments)


def _ended(output: Model) -> Model:
    dispatcher.event(LLMStructuredPredictEndEvent(output=output))
    return output
