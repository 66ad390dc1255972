"""Streams for LlamaIndex's `FunctionCallingProgram`, which makes a call's arguments an object.

In a stream it passes over pieces that it cannot read, and forgets that the call is required, so
that without one it would end with an empty object. An error of the stream itself it lets through.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ChatResponse

from uq_llm_integrations.chat.objects import missing_call
from uq_llm_integrations.llama_index.messages import selections

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import ChatResponseAsyncGen, ChatResponseGen
    from llama_index.core.tools.types import BaseTool

REQUIRED = {"tool_required": True}


def is_of_program(tools: Sequence[BaseTool]) -> bool:
    """Whether these are the tools of a program: one whose function makes the object."""
    made_by = getattr(getattr(tools[0], "fn", None), "__qualname__", "") if len(tools) == 1 else ""
    return str(made_by).startswith("get_function_tool.")


def with_call(responses: ChatResponseGen) -> Generator[ChatResponse, None, None]:
    """Yield responses, but raise in place of a last one without a whole call."""
    last = None
    for response in responses:
        if "finish_reason" not in response.additional_kwargs:
            yield response
        else:
            last = response
    if last is not None:
        yield _checked(last)


async def awith_call(responses: ChatResponseAsyncGen) -> AsyncGenerator[ChatResponse, None]:
    """Yield what `with_call` does."""
    last = None
    async for response in responses:
        if "finish_reason" not in response.additional_kwargs:
            yield response
        else:
            last = response
    if last is not None:
        yield _checked(last)


def _checked(response: ChatResponse) -> ChatResponse:
    given: dict[str, Any] = response.additional_kwargs
    reason, uncertainty = given["finish_reason"], given.get("uncertainty", {})
    if not selections(response.message, reason, uncertainty):
        raise missing_call(None, response.message.content or "", reason, uncertainty)
    return response
