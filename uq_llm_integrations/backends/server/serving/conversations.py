"""Conversations as the embedded backend encodes them: text from outside stays text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from uq_llm_integrations.backends.capabilities import Capabilities
from uq_llm_integrations.backends.codec import Tokenizer, TokenizerBackend
from uq_llm_integrations.backends.control_tokens import ControlTokens
from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.errors import InvalidRequestError, MethodUnavailableError
from uq_llm_integrations.records import (
    Candidate,
    Conversation,
    Request,
    SampleMonitor,
    StreamPiece,
)

T = TypeVar("T")

ALLOWS_SPECIAL_TOKENS: ContextVar[bool] = ContextVar("allows_special_tokens", default=False)
"""Whether names of control tokens in the messages of this request are these tokens."""

TOOLS: ContextVar[Sequence[Mapping[str, Any]] | None] = ContextVar("tools", default=None)
"""The tools of this request as its body has them; vLLM adds fields, and orders them anew."""

_OF_VLLM = {"add_generation_prompt", "continue_final_message", "tokenize", "tools", "return_dict"}


class Codec(TokenizerBackend):
    """The encoding and decoding of a server's model, and nothing else of a backend."""

    def __init__(self, model: str, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer

    async def tokenizer(self) -> Tokenizer:
        """Return the server's tokenizer."""
        found: Tokenizer = self._tokenizer
        return found

    @property
    def capabilities(self) -> Capabilities:
        """What the codec can serve: no request."""
        return Capabilities(self._model, None, None, 0, 0)

    @property
    def loop(self) -> LoopThread:
        """There is no event loop but the server's own."""
        raise self._no_backend()

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Raise MethodUnavailableError."""
        raise self._no_backend()

    def stream(self, request: Request) -> AsyncGenerator[StreamPiece, None]:
        """Raise MethodUnavailableError."""
        raise self._no_backend()

    async def score_all(
        self,
        prompt_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        top_logprobs: int = 0,
    ) -> list[Candidate]:
        """Raise MethodUnavailableError."""
        raise self._no_backend()

    def _no_backend(self) -> MethodUnavailableError:
        return MethodUnavailableError(f"the codec of {self._model} only encodes and decodes")

    def may_have_control_tokens(self, values: object) -> bool:
        """Return whether names of control tokens could be in texts, however they are nested."""
        return ControlTokens.of(self._tokenizer).may_come_of(values)


def conversation_of(
    messages: Sequence[Mapping[str, Any]], template: Mapping[str, Any], chat_template: str | None
) -> Conversation | None:
    """Return what vLLM was asked to render, None where the codec has no word for it.

    `template` has all values for the chat template, `chat_template` is the one that replaces the
    tokenizer's own.
    """
    continues = bool(template.get("continue_final_message"))
    if template.get("add_generation_prompt") is False and not continues:
        return None
    values = {
        name: value
        for name, value in template.items()
        if name not in _OF_VLLM and value is not None
    }
    if chat_template is not None:
        values["chat_template"] = chat_template
    return Conversation(
        tuple(dict(one) for one in messages),
        _tools(template.get("tools") or ()),
        values,
        continues=continues,
        allow_special_tokens=ALLOWS_SPECIAL_TOKENS.get(),
    )


def _tools(rendered: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the tools that are to be rendered as the caller has written them."""
    written = TOOLS.get()
    if written is not None and len(written) == len(rendered):
        return tuple(written)
    return tuple(rendered)


async def encoded(codec: Codec, conversation: Conversation) -> list[int]:
    """Return the tokens of a conversation; a thread computes them."""
    return list(await asyncio.to_thread(_finished, codec.encode_chat(conversation)))


def refuse_names(codec: Codec, messages: Sequence[Mapping[str, Any]], why: str) -> None:
    """Raise InvalidRequestError where vLLM's own encoding could make control tokens of texts."""
    if not ALLOWS_SPECIAL_TOKENS.get() and codec.may_have_control_tokens(_texts(messages)):
        raise InvalidRequestError(
            f"the messages have names of control tokens, which cannot be kept as text {why}; "
            "leave them out, or set allow_special_tokens"
        )


def _texts(value: object) -> list[str]:
    """Return the texts within a value, but for those of pictures and sound."""
    if isinstance(value, str):
        return [] if value.startswith("data:") else [value]
    if isinstance(value, Mapping):
        parts = [one for name, one in value.items() if name not in ("role", "type")]
        return [text for one in parts for text in _texts(one)]
    if isinstance(value, list | tuple):
        return [text for one in value for text in _texts(one)]
    return []


def _finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine gives that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    coroutine.close()
    raise RuntimeError("the codec waits for something, which it never does")
