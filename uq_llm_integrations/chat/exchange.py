"""One turn with a model: from what it is given to a request, from candidates to scored replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from pydantic import BaseModel

from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.prompts import encode_prompt
from uq_llm_integrations.backends.token_texts import GrowingTexts, read_texts
from uq_llm_integrations.chat.objects import check_not_abstained
from uq_llm_integrations.chat.parsers import (
    OneCallReader,
    PlainReader,
    ReplyReader,
    cut_call,
    is_cut,
    reply_reader,
)
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
from uq_llm_integrations.chat.tool_specs import tool_specs
from uq_llm_integrations.errors import InvalidRequestError, described
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
    top_tokens,
    uncertainty_metadata,
)
from uq_llm_integrations.settings import Settings
from uq_llm_integrations.strategies.base import Strategy, why_no_grammar
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
        if turn.conversation.tools or turn.schema is not None:
            _check_tools_and_schema(turn, model.settings.strategy)
        if turn.conversation.continues:
            _check_continued(turn.conversation)
        self._model, self._turn = model, turn
        # Where the model abstains from an object, none can say so.
        self._is_object_due = turn.schema is not None and turn.raises_abstention
        self._backend, self._settings = model.backend, model.settings
        self._wants_logprobs = model.settings.logprobs or model.settings.top_logprobs > 0
        self._new_reader: Callable[[], ReplyReader] = PlainReader
        self._stream_reader: ReplyReader | None = None
        self._texts: GrowingTexts | None = None
        self._prompt_ids: tuple[int, ...] = ()
        self._shown = Shown()

    async def request(self) -> Request:
        """Return the request for the turn."""
        turn, sampling = self._turn, _grammar(self._turn.schema)
        if turn.prompt is not None:
            ids = self._prompt_ids = await encode_prompt(
                self._backend,
                turn.prompt,
                chat=False,
                allow_special_tokens=self._settings.allow_special_tokens,
            )
            request = self._model.request(ids, turn.prompt, stop=turn.stop, **sampling)
            return replace(request, chat=False)
        conversation = turn.conversation
        settings = self._settings
        if conversation.tools or settings.chat_template_kwargs or settings.allow_special_tokens:
            conversation = self._completed(conversation)
        ids = self._prompt_ids = await self._backend.encode_chat(conversation)
        if conversation.tools or self._settings.reasoning_parser:
            await self._prepare_reader(conversation, ids)
            sampling |= self._new_reader().sampling
        question = conversation.question
        return self._model.request(ids, question, conversation, turn.stop, **sampling)

    async def replies(self, result: Result) -> ChatResult:
        """Return the candidates as replies, the best first."""
        count = range(len(result.candidates))
        replies = [await self._scored_reply(result, index) for index in count]
        if self._is_object_due:
            check_not_abstained(replies[0].uncertainty, result)
        return ChatResult(replies, result)

    async def piece(self, piece: AnswerPiece) -> ReplyPiece:
        """Return what a piece of the stream adds to the reply."""
        settings, result = self._settings, piece.result
        reader = self._stream_reader = self._stream_reader or self._new_reader()
        part = reader.part(piece.text, piece.token_ids, is_last=result is not None)
        self._shown.add(part)
        uncertainty, logprobs = JsonObject(), None
        if settings.token_scores or self._wants_logprobs:
            self._texts = self._texts or GrowingTexts(self._backend, self._prompt_ids)
            texts = await self._texts.of(piece.token_ids)
            logprobs = await self._logprobs(piece.trace, self._texts)
            if settings.token_scores:
                columns = token_metadata(piece.token_ids, piece.trace, texts)
                uncertainty = {"by_token": columns}
        whole = await self._scored_reply(result, 0) if result else None
        if whole and result:
            if self._is_object_due:
                check_not_abstained(whole.uncertainty, result)
            part = self._last_part(part, whole, result)
        return ReplyPiece(part, uncertainty, logprobs, whole, result)

    def _completed(self, given: Conversation) -> Conversation:
        """Return the conversation with the configured values for its template."""
        tools = () if self._turn.tool_choice == "none" else given.tools
        return self._settings.completed(replace(given, tools=tools))

    async def _prepare_reader(self, conversation: Conversation, ids: tuple[int, ...]) -> None:
        settings, turn = self._settings, self._turn
        one_call = not turn.parallel_tool_calls
        new_reader = partial(
            reply_reader,
            await self._backend.tokenizer(),
            conversation,
            turn.tool_choice,
            settings.tool_parser,
            settings.reasoning_parser,
            ids,
            one_call=one_call,
            schema=_grammar(turn.schema).get("structured_outputs"),
        )
        self._new_reader = (lambda: OneCallReader(new_reader())) if one_call else new_reader

    async def _scored_reply(self, result: Result, index: int) -> ScoredReply:
        settings, candidate = self._settings, result.candidates[index]
        reply = self._read(candidate)
        uncertainty, logprobs = uncertainty_metadata(result, index), None
        is_object = self._turn.schema is not None
        has_parts = bool(reply.reasoning or reply.tool_calls or is_object)
        if has_parts or settings.token_scores or self._wants_logprobs:
            read = await read_texts(self._backend, candidate)
            texts = read.latest
            reply = self._shown.with_ids(reply)
            if has_parts:
                spans = SpanScores(candidate, texts, result.scores[index])
                uncertainty |= spans.of_reply(reply, is_object=is_object)
            if settings.token_scores:
                columns = token_metadata(candidate.token_ids, candidate.trace, texts)
                uncertainty["by_token"] = columns
            logprobs = await self._logprobs(candidate.trace, read)
        if index == 0 and result.decision.text is not None:
            reply = Reply(result.decision.text, reply.reasoning)
        return ScoredReply(reply, candidate, uncertainty, logprobs)

    def _last_part(self, part: ReplyPart, whole: ScoredReply, result: Result) -> ReplyPart:
        if result.decision.text is not None:
            return ReplyPart(result.decision.text)
        return self._shown.completed(part, whole.reply)

    def _read(self, candidate: Candidate) -> Reply:
        read = self._new_reader().whole
        if is_cut(candidate):
            read = partial(read, is_cut=True)
        reply = read(candidate.text, candidate.token_ids)
        choice = self._turn.tool_choice
        is_forced = bool(self._turn.conversation.tools) and choice not in {"auto", "none"}
        return cut_call(reply, candidate, choice) if is_forced else reply

    async def _logprobs(self, trace: TokenTrace, texts: GrowingTexts) -> list[JsonObject] | None:
        if not self._wants_logprobs or trace.damage:
            return None
        top = top_tokens(trace, self._settings.top_logprobs)
        names = await texts.alternatives([[token for token, _ in row] for row in top])
        return openai_logprobs(trace, texts.latest, top, names)


def _check_tools_and_schema(turn: Turn, strategy: Strategy) -> None:
    """Raise InvalidRequestError for tools that are none, and for a grammar that steps break."""
    tool_specs(turn.conversation.tools)
    if (source := _grammar_source(turn)) and strategy.takes_steps:
        raise InvalidRequestError(why_no_grammar(strategy, source))


def _grammar_source(turn: Turn) -> str | None:
    """Return what of a turn requests a grammar, None where nothing does."""
    if turn.schema is not None:
        return "a schema"
    is_forced = turn.conversation.tools and turn.tool_choice not in {"auto", "none"}
    return f"tool_choice={turn.tool_choice!r}" if is_forced else None


def _check_continued(conversation: Conversation) -> None:
    """Raise InvalidRequestError unless the last message is a text of the model."""
    last = conversation.messages[-1] if conversation.messages else {}
    if last.get("role") != "assistant" or last.get("tool_calls"):
        what = (
            "calls tools"
            if last.get("tool_calls")
            else f"has the role {described(last.get('role'))}"
        )
        raise InvalidRequestError(
            "continue_final_message needs a text of the assistant as the last message, which "
            f"{what}"
        )


def _grammar(schema: Mapping[str, Any] | type[BaseModel] | None) -> JsonObject:
    if schema is None:
        return {}
    plain = plain_schema(schema)
    return {"structured_outputs": {"json": plain} if plain else {"json_object": True}}
