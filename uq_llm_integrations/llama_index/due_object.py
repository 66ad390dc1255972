"""The object that a prediction is to give: how a chat call requests it, and how it is read."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Generic, TypeVar

from llama_index.core.base.llms.types import ChatResponse
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program.utils import create_flexible_model
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, RootModel
from pydantic_core import to_json

from uq_llm_integrations.chat.json_spans import is_json
from uq_llm_integrations.chat.objects import check_object, missing_call, partial_object
from uq_llm_integrations.chat.schemas import class_schema, object_tool
from uq_llm_integrations.llama_index.messages import selections
from uq_llm_integrations.records import JsonMapping, JsonObject

Model = TypeVar("Model", bound=BaseModel)

MODES = (PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION, PydanticProgramMode.LLM)
"""By a grammar, as the arguments of a call, and as text that the prompt describes."""

_OF_TOOLS = ("tool_required", "tool_choice", "allow_parallel_tool_calls")


class DueObject(Generic[Model]):
    """An object of a class, in one of LlamaIndex's modes, and what there is of it in a stream."""

    def __init__(self, output_cls: type[Model], mode: PydanticProgramMode) -> None:
        self._class, self._mode = output_cls, mode
        self._last: ChatResponse | None = None

    def prompt(self, prompt: BasePromptTemplate) -> BasePromptTemplate:
        """Return the prompt; as text, the object is described in it."""
        if self._mode is PydanticProgramMode.LLM:
            prompt = copy.copy(prompt)
            prompt.output_parser = PydanticOutputParser(output_cls=self._class)
        return prompt

    def arguments(self, llm_kwargs: JsonMapping | None) -> JsonObject:
        """Return the arguments of the chat call; those that choose tools mean nothing here."""
        given = {name: one for name, one in (llm_kwargs or {}).items() if name not in _OF_TOOLS}
        if self._mode is PydanticProgramMode.LLM:
            return given
        schema = class_schema(self._class)
        if self._mode is PydanticProgramMode.DEFAULT:
            return {"response_schema": schema, **given}
        tool = object_tool(schema.get("title", self._class.__name__), schema)
        return {"tools": [tool], "tool_choice": tool["function"]["name"], **given}

    def read(self, response: ChatResponse) -> Model:
        """Return the object.

        Raises HighUncertaintyError where the model abstains, IncompleteAnswerError where the answer
        ended before the object did, and pydantic's ValidationError where it does not follow the
        class.
        """
        text = self._text(response)
        reason, uncertainty = _metadata(response)
        if self._mode is PydanticProgramMode.FUNCTION:
            calls = selections(response.message, reason, uncertainty)
            if not calls:
                raise missing_call(self._class.__name__, text, reason, uncertainty)
            return self._class.model_validate_json(to_json(calls[0].tool_kwargs))
        check_object(text, reason, uncertainty)
        return self._class.model_validate_json(text)

    def grown(self, response: ChatResponse) -> Iterator[Any]:
        """Yield the object that an unfinished text has, where it has one."""
        self._last = response
        fields = partial_object(self._text(response))
        if isinstance(fields, dict) and not issubclass(self._class, RootModel):
            yield self._partial(**fields)

    def whole(self) -> Model:
        """Return the finished object of a stream."""
        assert self._last is not None
        return self.read(self._last)

    @cached_property
    def _partial(self) -> type[BaseModel]:
        return create_flexible_model(self._class)

    def _text(self, response: ChatResponse) -> str:
        text = response.message.content or ""
        return _json_in(text) if self._mode is PydanticProgramMode.LLM else text


def _json_in(text: str) -> str:
    """Return the object in a text, or all from its first brace on where that has no end."""
    start, end = text.find("{"), text.rfind("}")
    within = text[max(start, 0) : end + 1]
    return within if is_json(within) else text[max(start, 0) :]


def _metadata(response: ChatResponse) -> tuple[str | None, JsonMapping]:
    given = response.additional_kwargs
    return given.get("finish_reason"), given.get("uncertainty", {})
