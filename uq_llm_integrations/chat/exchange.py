"""The way of a chat request, the same for both frameworks: what is asked, what was replied."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from uq_llm_integrations.backends.codec import GrowingTexts, top_texts
from uq_llm_integrations.chat.parts import Parts
from uq_llm_integrations.chat.reading import ReplyFormat, reader_of
from uq_llm_integrations.chat.reply import PlainReader, Reply, ReplyPart, ReplyReader
from uq_llm_integrations.chat_settings import ChatSettings
from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.records import Candidate, Conversation, Request, Result, TokenTrace
from uq_llm_integrations.report.logprobs import openai_logprobs
from uq_llm_integrations.report.metadata import token_columns, token_metadata, uncertainty_metadata
from uq_llm_integrations.strategies.drive import adrive
from uq_llm_integrations.strategies.streaming import AnswerPiece


@dataclass(frozen=True)
class Turn:
    """What is asked of the model: its next message in a conversation.

    `tool_choice` is 'auto', 'none', 'required' or a tool's name. `schema` is a JSON Schema that the
    content has to follow, `{}` for any JSON object. A `prompt` is text to go on from as it stands,
    outside the chat template and in place of a conversation.
    """

    conversation: Conversation = field(default_factory=lambda: Conversation(()))
    stop: tuple[str, ...] = ()
    tool_choice: str = "auto"
    schema: Mapping[str, Any] | None = None
    prompt: str | None = None


@dataclass(frozen=True, eq=False)
class ScoredReply:
    """One reply and how sure the model was of it."""

    reply: Reply
    candidate: Candidate
    uncertainty: dict[str, Any]
    """What `uncertainty_metadata` tells, and the scores of the reply's `parts`."""
    logprobs: list[dict[str, Any]] | None = None
    """An entry for each token in the shape of OpenAI's API, where asked for."""


@dataclass(frozen=True, eq=False)
class ReplyPiece:
    """What a stream adds to a reply. The last piece has the whole of it."""

    part: ReplyPart
    uncertainty: dict[str, Any] = field(default_factory=dict)
    """The scores of this piece's tokens (`by_token`), where asked for."""
    logprobs: list[dict[str, Any]] | None = None
    whole: ScoredReply | None = None
    result: Result | None = None


class Chatting:
    """Asks for one turn and reads what comes back; `bound` has the settings of the call."""

    def __init__(self, bound: ChatSettings, turn: Turn) -> None:
        _check(turn)
        self._bound, self._turn = bound, turn
        self._new_reader: Callable[[], ReplyReader] = PlainReader
        self._shown_ids: dict[int, str] = {}

    async def replies(self) -> tuple[Result, list[ScoredReply]]:
        """Return the result, and its candidates as replies, the best first."""
        bound = self._bound
        request = await self._request()
        result = await adrive(bound._deciding, request, bound._backend, bound.methods)
        return result, [await self._read(result, i) for i in range(len(result.candidates))]

    async def pieces(self) -> AsyncGenerator[ReplyPiece, None]:
        """Yield the reply piece by piece; closing the stream stops the engine's work."""
        request = await self._request()
        texts, reader = GrowingTexts(self._bound._backend), self._new_reader()
        async with aclosing(self._bound._answer_pieces(request)) as pieces:
            async for piece in pieces:
                yield await self._piece(piece, reader, texts)

    async def _request(self) -> Request:
        bound, turn, given = self._bound, self._turn, self._turn.conversation
        if turn.prompt is not None:
            ids = await bound._backend.encode(turn.prompt)
            request = replace(bound._asked(ids, list(turn.stop), turn.prompt), chat=False)
            return replace(request, sampling={**request.sampling, **_grammar(turn)})
        template = {**bound.chat_template_kwargs, **given.template}
        tools = () if turn.tool_choice == "none" else given.tools
        conversation = Conversation(given.messages, tools, template)
        ids = await bound._backend.encode_chat(conversation)
        tokenizer = await bound._backend.tokenizer()
        form = ReplyFormat(bound.tool_parser, bound.reasoning_parser)
        self._new_reader = partial(reader_of, tokenizer, conversation, turn.tool_choice, form, ids)
        request = bound._asked(ids, list(turn.stop), conversation.question, conversation)
        sampling = {**request.sampling, **_grammar(turn), **self._new_reader().sampling}
        return replace(request, sampling=sampling)

    async def _read(self, result: Result, index: int) -> ScoredReply:
        bound, candidate = self._bound, result.candidates[index]
        reply = self._as_shown(self._new_reader().whole(candidate.text, candidate.token_ids))
        uncertainty = uncertainty_metadata(result, index)
        texts: list[str] = []
        if bound.token_scores or bound.wants_logprobs or self._has_parts(reply):
            texts = await bound._backend.token_texts(candidate.token_ids)
        if self._has_parts(reply):
            parts = Parts(candidate, texts, bound.methods)
            uncertainty |= parts.of_reply(reply, is_object=self._turn.schema is not None)
        if bound.token_scores:
            uncertainty["by_token"] = token_metadata(candidate, texts)
        if index == 0 and result.decision.text is not None:
            reply = Reply(result.decision.text, reply.reasoning)
        return ScoredReply(
            reply, candidate, uncertainty, await self._logprobs(candidate.trace, texts)
        )

    def _has_parts(self, reply: Reply) -> bool:
        return bool(reply.reasoning or reply.tool_calls or self._turn.schema is not None)

    def _as_shown(self, reply: Reply) -> Reply:
        """Return the reply with the ids by which a stream has shown its calls."""
        ids = self._shown_ids
        calls = (replace(one, id=ids.get(i, one.id)) for i, one in enumerate(reply.tool_calls))
        return replace(reply, tool_calls=tuple(calls))

    async def _piece(
        self, piece: AnswerPiece, reader: ReplyReader, texts: GrowingTexts
    ) -> ReplyPiece:
        bound, result = self._bound, piece.result
        part = reader.part(piece.text, piece.token_ids, is_last=result is not None)
        self._shown_ids |= {one.index: one.id for one in part.calls if one.id}
        if result and result.decision.text is not None:
            part = ReplyPart(result.decision.text)
        uncertainty, logprobs = {}, None
        if bound.token_scores or bound.wants_logprobs:
            added = await texts.of(piece.token_ids)
            logprobs = await self._logprobs(piece.trace, added)
            columns = token_columns(piece.token_ids, piece.trace, added)
            uncertainty = {"by_token": columns} if bound.token_scores else {}
        whole = await self._read(result, 0) if result else None
        return ReplyPiece(part, uncertainty, logprobs, whole, result)

    async def _logprobs(
        self, trace: TokenTrace, texts: Sequence[str]
    ) -> list[dict[str, Any]] | None:
        if not self._bound.wants_logprobs:
            return None
        top = await top_texts(self._bound._backend, trace)
        return openai_logprobs(trace, texts, top, self._bound.top_logprobs)


def _check(turn: Turn) -> None:
    if turn.schema is not None and turn.conversation.tools and turn.tool_choice != "none":
        raise InvalidRequestError("a reply follows a schema or may call tools, not both at once")


def _grammar(turn: Turn) -> dict[str, Any]:
    if turn.schema is None:
        return {}
    return {
        "structured_outputs": {"json": dict(turn.schema)} if turn.schema else {"json_object": True}
    }
