"""Replies read by vLLM's own tool and reasoning parsers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from uq_llm_integrations.backends.vllm.client_compat import (
    chat_request,
    new_tool_call_id,
    reply_parser,
)
from uq_llm_integrations.backends.vllm.requests import with_little_space
from uq_llm_integrations.chat.call_marks import TAGGED_THOUGHT, call_marks
from uq_llm_integrations.chat.json_spans import each_value, json_values
from uq_llm_integrations.chat.live_reply import LiveReply, continued_reply
from uq_llm_integrations.chat.reply import CallPart, Reply, ReplyPart, ToolCall
from uq_llm_integrations.chat.thought_text import ThoughtText
from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError, described, reason
from uq_llm_integrations.records import Conversation

if TYPE_CHECKING:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser import Parser


class VLLMReader:
    """Reads one reply with the parsers of these names, as vLLM's server does.

    vLLM's parsers of streams and of whole replies differ, and the former go by where the pieces
    end. What a reply says is what the latter say of the whole of it. A stream shows reasoning
    between `<think>` tags as it comes, and content up to where a call may begin; the rest, and all
    calls, it shows at the end.

    Where a call is requested, its grammar is part of `sampling`: the call is valid by construction.
    With a `schema`, vLLM's parameters of a grammar, a reply is a call or follows it. Raises
    ConfigurationError for a parser that vLLM does not have or that the tokenizer does not suit, and
    InvalidRequestError where it has no grammar for calls beside the schema.
    """

    def __init__(
        self,
        tokenizer: Any,
        conversation: Conversation,
        tool_choice: str,
        tool_parser: str | None,
        reasoning_parser: str | None,
        prompt_ids: tuple[int, ...] = (),
        *,
        one_call: bool = False,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        self._prompt_ids = list(prompt_ids)
        is_forced = tool_choice not in {"auto", "none"}
        self._request: ChatCompletionRequest = chat_request(
            conversation.tools,
            _choice(tool_choice),
            schema,
            one_call=one_call and (is_forced or schema is not None),
        )
        names = (tool_parser if conversation.tools else None, reasoning_parser)
        self._calls = bool(conversation.tools) and tool_choice != "none"
        is_strict = is_forced or schema is not None
        self._new_parser = partial(_parser, tokenizer, self._request, *names, is_strict=is_strict)
        parser = self._new_parser()
        self._ready: Parser | None = parser
        try:
            self._request = parser.adjust_request(self._request)
        except ValueError as error:
            why = f"vLLM cannot request these tools: {reason(error)}"
            raise InvalidRequestError(why) from error
        if schema is not None:
            _check_both(self._request, tool_parser)
        self._thinks = reasoning_parser is not None and not _has_thought(parser, self._prompt_ids)
        if reasoning_parser is not None and not self._thinks:
            self._new_parser = partial(
                _parser, tokenizer, self._request, names[0], None, is_strict=is_strict
            )
            self._ready = None
        self._marks = call_marks(tool_parser or "") if self._calls else ()
        self._shows = not self._thinks or reasoning_parser in TAGGED_THOUGHT
        self._is_opened = self._thinks and _ends_opened(tokenizer, self._prompt_ids)
        self._shows_content = self._shows and not is_forced
        self._stream = self._new_stream()

    @cached_property
    def sampling(self) -> Mapping[str, Any]:
        """The grammar of a call that must come, and special tokens where the parser reads them."""
        request = self._request
        grammar = request.extract_structured_outputs()
        given = {"structured_outputs": with_little_space(grammar) if grammar else None}
        if not request.skip_special_tokens:
            given |= {"skip_special_tokens": False, "spaces_between_special_tokens": False}
        return {name: value for name, value in given.items() if value is not None}

    def whole(self, text: str, token_ids: tuple[int, ...], *, is_cut: bool = False) -> Reply:
        """Read a finished reply; one that vLLM cannot read is content."""
        try:
            reply = self._read(text, token_ids)
            if is_cut and reply.tool_calls:
                reply = self._with_open_call(reply, text, token_ids)
        except Exception:  # vLLM's parsers raise what they like for a text that a model wrote
            reply = Reply(text)
        return continued_reply(self._new_stream().add(text), reply)

    def _read(self, text: str, token_ids: tuple[int, ...]) -> Reply:
        parser, self._ready = self._prompted(self._ready or self._new_parser()), None
        reasoning, content, calls = parser.parse(
            text, self._request, enable_auto_tools=True, model_output_token_ids=token_ids
        )
        found = tuple(
            ToolCall(one.name, one.arguments, one.id or new_tool_call_id()) for one in calls or ()
        )
        if self._calls and not found:
            found, said = self._damaged_calls(text, token_ids)
            content = said if found else content
        return Reply(content or "", reasoning, found)

    def _with_open_call(self, reply: Reply, text: str, token_ids: tuple[int, ...]) -> Reply:
        """Return a reply that was cut with its last call as one that has no end, where it has none.

        Of a call that is no JSON, vLLM makes what has come of it a whole one at the end.
        """
        *calls, last = reply.tool_calls
        if not last.is_whole or _is_written(last, text):
            return reply
        begun, _ = self._damaged_calls(text, token_ids)
        is_closed = len(begun) == len(reply.tool_calls) and begun[-1].is_whole
        cut = replace(last, arguments=last.arguments.rstrip().removesuffix("}"), is_cut=True)
        return reply if is_closed else replace(reply, tool_calls=(*calls, cut))

    def _damaged_calls(
        self, text: str, token_ids: tuple[int, ...]
    ) -> tuple[tuple[ToolCall, ...], str | None]:
        """Return calls that are cut or no JSON, and what else is said: vLLM only streams them."""
        parser = self._prompted(self._new_parser())
        delta = parser.parse_delta(
            text, list(token_ids), self._request, self._prompt_ids, finished=False
        )  # finished, it would give empty arguments to a call that was cut before them
        if delta is None:
            return (), None
        parts = _call_parts(delta.tool_calls)
        return tuple(_damaged(one) for one in parts if one.name), delta.content

    def part(self, text: str, token_ids: tuple[int, ...], *, is_last: bool) -> ReplyPart:
        """Show what no call takes back any more, and at the end what the whole of it says."""
        self._stream.note(text, token_ids)
        if is_last:
            return self._stream.ended(self.whole(*self._stream.all()))
        return self._stream.add(text)

    def _new_stream(self) -> LiveReply:
        thought = ThoughtText(is_opened=self._is_opened) if self._shows and self._thinks else None
        return LiveReply(self._marks, thought, shows_content=self._shows_content)

    def _prompted(self, parser: Parser) -> Parser:
        """Return a parser that knows the prompt."""
        if self._prompt_ids:
            parser.set_prompt_token_ids(self._prompt_ids)
        return parser


def _parser(
    tokenizer: object,
    request: ChatCompletionRequest,
    tool: str | None,
    reasoning: str | None,
    *,
    is_strict: bool,
) -> Parser:
    try:
        return reply_parser(tokenizer, request, tool, reasoning, is_strict=is_strict)
    except Exception as error:  # vLLM's parsers raise what they like at construction
        raise ConfigurationError(
            f"tool_parser={described(tool)}, reasoning_parser={described(reasoning)}: "
            f"{reason(error)}; "
            "allowed are vLLM's names, see vllm.tool_parsers and vllm.reasoning"
        ) from error


def _has_thought(parser: Parser, prompt_ids: list[int]) -> bool:
    """Whether the reasoning is over at the end of the prompt, so that the reply has none."""
    return bool(prompt_ids) and parser.is_reasoning_end(prompt_ids)


def _ends_opened(tokenizer: Any, prompt_ids: list[int]) -> bool:
    """Whether the prompt ends with the tag that opens the reasoning."""
    return bool(prompt_ids) and str(tokenizer.decode(prompt_ids[-8:])).rstrip().endswith("<think>")


def _check_both(request: ChatCompletionRequest, tool_parser: str | None) -> None:
    """Raise InvalidRequestError where vLLM took the schema alone for the grammar."""
    grammar = request.extract_structured_outputs()
    if grammar is None or not grammar.structural_tag:
        raise InvalidRequestError(
            "a reply may call tools or follow a schema, but for both at once vLLM needs a "
            f"tool_parser with a grammar of its calls (it is {described(tool_parser)}) and a "
            "schema that xgrammar serves"
        )


def _choice(name: str) -> str | dict[str, object]:
    if name in {"auto", "none", "required"}:
        return name
    return {"type": "function", "function": {"name": name}}


def _call_parts(calls: Any) -> tuple[CallPart, ...]:
    """Return one part a call, though vLLM may have several."""
    parts: dict[int, CallPart] = {}
    for one in calls or ():
        said = (one.function.arguments if one.function else None) or ""
        name = one.function.name if one.function else None
        part = parts.get(one.index, CallPart(one.index))
        parts[one.index] = CallPart(
            one.index, part.arguments + said, part.name or name, part.id or one.id
        )
    return tuple(parts.values())


def _is_written(call: ToolCall, text: str) -> bool:
    """Whether the arguments stand in a text as JSON, which has an end of its own."""
    arguments = json.loads(call.arguments or "{}", strict=False)
    return any(one.value == arguments for one in each_value(json_values(text)))


def _damaged(part: CallPart) -> ToolCall:
    """Return a call that is cut or no JSON; one without any arguments ended before them."""
    return ToolCall(part.name or "", part.arguments, part.id or new_tool_call_id(), is_cut=True)
