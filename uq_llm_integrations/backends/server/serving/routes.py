"""The plugin's own routes, below `/v1`, so that an API key guards them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError

from uq_llm_integrations.backends.control_tokens import ControlTokens
from uq_llm_integrations.backends.model_facts import tokenizer_digest
from uq_llm_integrations.backends.server.serving import conversations
from uq_llm_integrations.backends.server.serving.marks import VERSION
from uq_llm_integrations.backends.template_values import OWN_TEMPLATE
from uq_llm_integrations.backends.token_statistics import COLUMNS
from uq_llm_integrations.errors import InvalidRequestError, UncertaintyError, reason
from uq_llm_integrations.records import Conversation
from uq_llm_integrations.version import __version__

if TYPE_CHECKING:
    from starlette.datastructures import State

PREFIX = "/v1/uq"

WHY_NO_TEMPLATE = (
    "chat_template is a program, which this server takes from no request; start it with "
    "--trust-request-chat-template where all who reach it may run templates"
)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextBody(_Body):
    """A text to be encoded."""

    text: str
    chat: bool = False
    data: bool = False
    continues: bool = False


class MessagesBody(_Body):
    """A conversation to be encoded."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    chat_template_kwargs: dict[str, Any] = {}
    continues: bool = False
    allow_special_tokens: bool = False


class TokensBody(_Body):
    """Tokens to be decoded."""

    token_ids: list[int]


def prepare(state: State, client: Any, *, trusts_templates: bool = False) -> None:
    """Keep what the routes need in a server's state.

    `trusts_templates` says whether a request may bring a chat template, which is a program.
    """
    tokenizer, config = client.get_tokenizer(), client.vllm_config
    model = str(config.model_config.served_model_name or config.model_config.model)
    codec = conversations.Codec(model, tokenizer)
    state.uq_llm_codec, state.uq_llm_trusts_templates = codec, trusts_templates
    state.uq_llm_capabilities = _capabilities(config, codec, model, tokenizer)


def _capabilities(config: Any, codec: Any, model: str, tokenizer: Any) -> dict[str, Any]:
    import vllm

    return {
        "version": VERSION,
        "package_version": __version__,
        "vllm_version": vllm.__version__,
        "model": model,
        "vocabulary_size": config.model_config.get_vocab_size(),
        "context_length": config.model_config.max_model_len,
        "max_logprobs": config.model_config.max_logprobs,
        "columns": list(COLUMNS),
        "exact": True,
        "reason": None,
        "inspect": False,
        "tokenizer": tokenizer_digest(tokenizer),
        "has_chat_template": bool(ControlTokens.of(tokenizer).template),
        "block_size": config.cache_config.block_size,
    }


async def encode(
    codec: conversations.Codec, body: dict[str, Any], *, trusts_templates: bool = False
) -> dict[str, Any]:
    """Return the tokens of a text or a conversation, as the embedded backend's methods do."""
    if "messages" in body:
        given = MessagesBody.model_validate(body)
        if OWN_TEMPLATE in given.chat_template_kwargs and not trusts_templates:
            raise InvalidRequestError(WHY_NO_TEMPLATE)
        conversation = Conversation(
            tuple(given.messages),
            tuple(given.tools),
            given.chat_template_kwargs,
            continues=given.continues,
            allow_special_tokens=given.allow_special_tokens,
        )
        return {"token_ids": await conversations.encoded(codec, conversation)}
    text = TextBody.model_validate(body)
    return {"token_ids": list(await _off_loop(_encoded_text(codec, text)))}


async def _encoded_text(codec: conversations.Codec, body: TextBody) -> tuple[int, ...]:
    if body.chat and (body.data or body.continues):
        raise InvalidRequestError("chat is true; data and continues are then no options")
    if body.data:
        return await codec.encode_data(body.text, continues=body.continues)
    if body.continues:
        return await codec.encode_continuation(body.text)
    return await codec.encode(body.text, chat=body.chat)


async def decode(codec: conversations.Codec, body: dict[str, Any], size: int) -> dict[str, Any]:
    """Return the text of tokens, and the text that each of them adds."""
    ids = TokensBody.model_validate(body).token_ids
    for one in ids:
        if not 0 <= one < size:
            raise InvalidRequestError(f"there is no token {one}; allowed are 0 to {size - 1}")
    text, texts = await asyncio.gather(
        _off_loop(codec.decode(ids)), _off_loop(codec.token_texts(ids))
    )
    return {"text": text, "texts": texts}


async def _off_loop(coroutine: Any) -> Any:
    return await asyncio.to_thread(conversations._finished, coroutine)


@lru_cache(maxsize=1)
def router() -> APIRouter:
    """Return the routes."""
    made = APIRouter(prefix=PREFIX)

    @made.get("/capabilities")
    async def capabilities(request: Request) -> JSONResponse:
        return _json(request.app.state.uq_llm_capabilities)

    @made.post("/encode")
    async def encode_route(request: Request) -> JSONResponse:
        state, body = request.app.state, await _body(request)
        trusts = state.uq_llm_trusts_templates
        return await _answered(encode(state.uq_llm_codec, body, trusts_templates=trusts), request)

    @made.post("/decode")
    async def decode_route(request: Request) -> JSONResponse:
        state = request.app.state
        size = state.uq_llm_capabilities["vocabulary_size"]
        return await _answered(decode(state.uq_llm_codec, await _body(request), size), request)

    return made


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        return {"": "no JSON"}
    return body if isinstance(body, dict) else {"": "no JSON object"}


async def _answered(answer: Awaitable[dict[str, Any]], request: Request) -> JSONResponse:
    try:
        return _json(await answer)
    except (UncertaintyError, ValidationError) as error:
        return _refusal(reason(error))


def _refusal(message: str) -> JSONResponse:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
    return _json({"error": error}, status=400)


def _json(content: object, status: int = 200) -> JSONResponse:
    return JSONResponse(content, status_code=status)
