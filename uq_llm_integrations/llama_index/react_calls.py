"""Calls that LlamaIndex's `ReActAgent` reads out of the text of an answer, and mends."""

from __future__ import annotations

from collections.abc import Sequence

from llama_index.core.base.llms.types import ChatMessage

from uq_llm_integrations.chat.json_spans import json_values
from uq_llm_integrations.chat.objects import incomplete
from uq_llm_integrations.chat.parsers import is_cut
from uq_llm_integrations.chat.reply import ScoredReply

_ACTION, _INPUT = "Action:", "Action Input:"


def check_action(messages: Sequence[ChatMessage], scored: ScoredReply) -> None:
    """Raise IncompleteAnswerError where an action, which the messages tell of, was cut.

    The agent would run the tool with what it can read of the arguments, or with none.
    """
    text = scored.reply.content
    if not is_cut(scored.candidate) or _ACTION not in text or not _tells_of_actions(messages):
        return
    _, given, arguments = text.rpartition(_INPUT)
    start = arguments.find("{")
    found = next(json_values(arguments[start:]), None) if given and start >= 0 else None
    if found is None or found.span[0] > 0:
        reason, uncertainty = scored.finish_reason, scored.uncertainty
        raise incomplete("the action", text, reason, uncertainty)


def _tells_of_actions(messages: Sequence[ChatMessage]) -> bool:
    return any(_INPUT in (one.content or "") for one in messages)
