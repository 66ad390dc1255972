"""A turn of a conversation: what the model is given, and what its reply consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from uq_llm_integrations.chat.json_spans import is_json
from uq_llm_integrations.records import Candidate, Conversation, JsonObject, Result


@dataclass(frozen=True)
class Turn:
    """What the model is given: a conversation that it continues.

    `tool_choice` is 'auto', 'none', 'required' or a tool's name. `schema` is a JSON Schema, or a
    pydantic class, that the content has to follow, `{}` for any JSON object; with tools, the model
    calls one or follows it. An abstention from it is a HighUncertaintyError; without
    `raises_abstention`, it is left to the caller, who gets its text. Without `parallel_tool_calls`,
    a reply has one call at most. A `prompt` is text to continue as it stands, outside the chat
    template and in place of a conversation.
    """

    conversation: Conversation = field(default_factory=lambda: Conversation(()))
    stop: tuple[str, ...] = ()
    tool_choice: str = "auto"
    schema: Mapping[str, Any] | type[BaseModel] | None = None
    prompt: str | None = None
    parallel_tool_calls: bool = True
    raises_abstention: bool = True


@dataclass(frozen=True)
class ToolCall:
    """A call that the model requests; `arguments` is JSON as the model wrote it.

    Without any, `is_cut` says that there would have been more.
    """

    name: str
    arguments: str
    id: str
    is_cut: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are JSON that has an end, or there are to be none."""
        return is_json(self.arguments) if self.arguments.strip() else not self.is_cut


@dataclass(frozen=True)
class Reply:
    """A whole turn: what is said, what was thought before it, and the requested calls."""

    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class CallPart:
    """A call in a stream. It comes at the end, where it is known whether it is whole."""

    index: int
    arguments: str = ""
    name: str | None = None
    id: str | None = None


def call_parts(calls: Sequence[ToolCall]) -> tuple[CallPart, ...]:
    """Return calls as they are shown, each in one piece."""
    return tuple(CallPart(i, one.arguments, one.name, one.id) for i, one in enumerate(calls))


@dataclass(frozen=True)
class ReplyPart:
    """A piece of a turn in a stream."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[CallPart, ...] = field(default=())


@dataclass(frozen=True, eq=False)
class ScoredReply:
    """One reply and how sure the model was of it."""

    reply: Reply
    candidate: Candidate
    uncertainty: JsonObject
    """The metadata of `uncertainty_metadata`, and the scores of the reply's parts."""
    logprobs: list[JsonObject] | None = None
    """An entry for each token in the shape of OpenAI's API, where requested."""

    @property
    def finish_reason(self) -> str | None:
        """Why the reply ended: 'tool_calls' where it makes calls that are whole."""
        calls, reason = self.reply.tool_calls, self.candidate.finish_reason
        is_made = bool(calls) and all(call.is_whole for call in calls)
        return "tool_calls" if is_made and reason in {"stop", "length"} else reason


@dataclass(frozen=True, eq=False)
class ChatResult:
    """The replies to one turn, the best first, and the result that they were read from.

    Example:
        >>> from uq_llm_integrations import ScriptedBackend, UncertaintyModel
        >>> answer = UncertaintyModel(ScriptedBackend(["Paris"])).chat("Capital of France?")
        >>> answer.text, answer.uncertainty["decision"]
        ('Paris', 'accepted')
    """

    replies: Sequence[ScoredReply]
    result: Result

    @property
    def text(self) -> str:
        """What the best reply says."""
        return self.replies[0].reply.content

    @property
    def uncertainty(self) -> JsonObject:
        """The metadata of the best reply."""
        return self.replies[0].uncertainty


@dataclass(frozen=True, eq=False)
class ReplyPiece:
    """What a stream adds to a reply. The last piece has the whole of it, and the result."""

    part: ReplyPart
    uncertainty: JsonObject = field(default_factory=dict)
    """The scores of this piece's tokens (`by_token`), where requested."""
    logprobs: list[JsonObject] | None = None
    whole: ScoredReply | None = None
    result: Result | None = None
