"""One turn with a model: from what it is given to a request, from candidates to scored replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from pydantic import BaseModel

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.codec import GrowingTexts, top_texts
from uq_llm_integrations.chat.objects import check_not_abstained
from uq_llm_integrations.chat.parsers import PlainReader, ReplyReader, cut_call, reply_reader
from uq_llm_integrations.chat.reply import (
    ChatResult,
    Reply,
    ReplyPart,
    ReplyPiece,
    ScoredReply,
    Turn,
)
from uq_llm_integrations.chat.schemas import plain_schema
from uq_llm_integrations.chat.shown import Shown
from uq_llm_integrations.chat.spans import SpanScores
from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.records import (
    Candidate,
    Conversation,
    JsonObject,
    Request,
    Result,
    TokenTrace,
)
from uq_llm_integrations.report.metadata import (
    openai_logprobs,
    token_metadata,
    uncertainty_metadata,
)
from uq_llm_integrations.settings import Settings
from uq_llm_integrations.strategies.streaming import AnswerPiece


class RequestMaker(Protocol):
    """The part of an `UncertaintyModel` that a turn needs."""

    backend: Backend
    settings: Settings

    def request(
        self,
        ids: tuple[int, ...],
        text: str | None = None,
        conversation: Conversation | None = None,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> Request:
        """Return the request for a prompt."""


class Exchange:
    """Prepares the request of one turn, and reads what comes back."""

    def __init__(self, model: RequestMaker, turn: Turn) -> None:
        if turn.schema is not None and turn.conversation.tools and turn.tool_choice != "none":
            raise InvalidRequestError(
                "a reply follows a schema or may call tools, not both at once"
            )
        self._model, self._turn = model, turn
        self._backend, self._settings = model.backend, model.settings
        self._wants_logprobs = model.settings.logprobs or model.settings.top_logprobs > 0
        self._new_reader: Callable[[], ReplyReader] = PlainReader
        self._stream_reader: ReplyReader | None = None
        self._texts: GrowingTexts | None = None
        self._shown = Shown()

    async def request(self) -> Request:
        """Return the request for the turn."""
        turn, sampling = self._turn, _grammar(self._turn.schema)
        if turn.prompt is not None:
            ids = await self._backend.encode(turn.prompt)
            request = self._model.request(ids, turn.prompt, stop=turn.stop, **sampling)
            return replace(request, chat=False)
        conversation = turn.conversation
        if conversation.tools or self._settings.chat_template_kwargs:
            conversation = self._completed(conversation)
        ids = await self._backend.encode_chat(conversation)
        if conversation.tools or self._settings.reasoning_parser:
            await self._prepare_reader(conversation, ids)
            sampling |= self._new_reader().sampling
        question = conversation.question
        return self._model.request(ids, question, conversation, turn.stop, **sampling)

    async def replies(self, result: Result) -> ChatResult:
        """Return the candidates as replies, the best first."""
        count = range(len(result.candidates))
        replies = [await self._scored_reply(result, index) for index in count]
        self._check_answered(replies[0], result)
        return ChatResult(replies, result)

    async def piece(self, piece: AnswerPiece) -> ReplyPiece:
        """Return what a piece of the stream adds to the reply."""
        settings, result = self._settings, piece.result
        reader = self._stream_reader = self._stream_reader or self._new_reader()
        part = reader.part(piece.text, piece.token_ids, is_last=result is not None)
        self._shown.add(part)
        uncertainty, logprobs = JsonObject(), None
        if settings.token_scores or self._wants_logprobs:
            self._texts = self._texts or GrowingTexts(self._backend)
            texts = await self._texts.of(piece.token_ids)
            logprobs = await self._logprobs(piece.trace, texts)
            if settings.token_scores:
                columns = token_metadata(piece.token_ids, piece.trace, texts)
                uncertainty = {"by_token": columns}
        whole = await self._scored_reply(result, 0) if result else None
        if whole and result:
            self._check_answered(whole, result)
            part = self._last_part(part, whole, result)
        return ReplyPiece(part, uncertainty, logprobs, whole, result)

    def _completed(self, given: Conversation) -> Conversation:
        """Return the conversation with the configured values for its template."""
        template = {**self._settings.chat_template_kwargs, **given.template}
        tools = () if self._turn.tool_choice == "none" else given.tools
        return Conversation(given.messages, tools, template)

    async def _prepare_reader(self, conversation: Conversation, ids: tuple[int, ...]) -> None:
        settings = self._settings
        self._new_reader = partial(
            reply_reader,
            await self._backend.tokenizer(),
            conversation,
            self._turn.tool_choice,
            settings.tool_parser,
            settings.reasoning_parser,
            ids,
        )

    async def _scored_reply(self, result: Result, index: int) -> ScoredReply:
        settings, candidate = self._settings, result.candidates[index]
        reply = self._read(candidate)
        uncertainty, logprobs = uncertainty_metadata(result, index), None
        is_object = self._turn.schema is not None
        has_parts = bool(reply.reasoning or reply.tool_calls or is_object)
        if has_parts or settings.token_scores or self._wants_logprobs:
            texts = await self._backend.token_texts(candidate.token_ids)
            reply = self._shown.with_ids(reply)
            if has_parts:
                spans = SpanScores(candidate, texts, result.scores[index])
                uncertainty |= spans.of_reply(reply, is_object=is_object)
            if settings.token_scores:
                columns = token_metadata(candidate.token_ids, candidate.trace, texts)
                uncertainty["by_token"] = columns
            logprobs = await self._logprobs(candidate.trace, texts)
        if index == 0 and result.decision.text is not None:
            reply = Reply(result.decision.text, reply.reasoning)
        return ScoredReply(reply, candidate, uncertainty, logprobs)

    def _last_part(self, part: ReplyPart, whole: ScoredReply, result: Result) -> ReplyPart:
        if result.decision.text is not None:
            return ReplyPart(result.decision.text)
        return self._shown.completed(part, whole.reply)

    def _check_answered(self, scored: ScoredReply, result: Result) -> None:
        """Raise where the model abstains from an object, since none can say so."""
        if self._turn.schema is not None and self._turn.raises_abstention:
            check_not_abstained(scored.uncertainty, result)

    def _read(self, candidate: Candidate) -> Reply:
        reply = self._new_reader().whole(candidate.text, candidate.token_ids)
        choice = self._turn.tool_choice
        is_forced = bool(self._turn.conversation.tools) and choice not in {"auto", "none"}
        return cut_call(reply, candidate, choice) if is_forced else reply

    async def _logprobs(self, trace: TokenTrace, texts: Sequence[str]) -> list[JsonObject] | None:
        if not self._wants_logprobs:
            return None
        top = await top_texts(self._backend, trace)
        return openai_logprobs(trace, texts, top, self._settings.top_logprobs)


def _grammar(schema: Mapping[str, Any] | type[BaseModel] | None) -> JsonObject:
    if schema is None:
        return {}
    plain = plain_schema(schema)
    return {"structured_outputs": {"json": plain} if plain else {"json_object": True}}
