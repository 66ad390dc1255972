"""Answers that are to be JSON: whether they are whole, and what is wrong with those that are not.

What was cut is never mended into something whole. A number at the end of an answer that was cut may
have had more digits, so that it counts as unfinished, too.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import from_json

from uq_llm_integrations.chat.json_spans import NESTING_LIMIT, is_json, is_too_deep
from uq_llm_integrations.chat.reply import ToolCall
from uq_llm_integrations.errors import (
    HighUncertaintyError,
    IncompleteAnswerError,
    InvalidAnswerError,
    described,
)  # fmt: skip  # a list of names
from uq_llm_integrations.records import JsonMapping, JsonObject, Result

_ENDED = {None, "stop", "tool_calls"}
"""Finish reasons of an answer that came to an end of its own, unless a stop string ended it."""

_CAUSES = {
    "length": "it reached its last token: give it more `max_tokens`, or a shorter prompt",
    "stop": "a stop string ended it, or the model itself",
    "early_stop": "it was stopped early, as too uncertain",
    "abort": "it was aborted",
    "boundary": "the step that it belongs to was over",
    "error": "it failed",
}


def check_object(text: str, finish_reason: str | None, uncertainty: JsonMapping) -> None:
    """Raise where an answer is not the object that was due.

    Raises HighUncertaintyError where the model abstained, and IncompleteAnswerError where the
    answer ended before the object did. What is no JSON at all passes: its parser says why.
    """
    check_not_abstained(uncertainty)
    if _is_whole_answer(text, finish_reason):
        return
    if finish_reason in _ENDED and text.strip() and partial_object(text) is None:
        return
    raise incomplete("the object", text, finish_reason, uncertainty)


def check_not_abstained(uncertainty: JsonMapping, result: Result | None = None) -> None:
    """Raise HighUncertaintyError, with the draft and its scores, where the model abstained."""
    if uncertainty.get("decision") == "abstained":
        draft = str(uncertainty.get("original_text", ""))
        raise HighUncertaintyError(
            uncertainty.get("condition"),
            result=result,
            text=draft,
            uncertainty=dict(uncertainty),
        )


def call_arguments(
    call: ToolCall, finish_reason: str | None, uncertainty: JsonMapping | None = None
) -> JsonObject:
    """Return the arguments of a call; none at all are an empty object.

    Raises IncompleteAnswerError where the call was cut, and InvalidAnswerError where its arguments
    are no JSON object.
    """
    name = f"the call of {call.name!r}" if call.name else "the call"
    if is_too_deep(call.arguments):
        many = f"{NESTING_LIMIT} objects and arrays within each other"
        reason = f"the arguments of {name} have more than {many}"
    elif not call.is_whole and (finish_reason not in _ENDED or _is_begun(call)):
        raise incomplete(name, call.arguments, finish_reason, uncertainty)
    elif not call.is_whole:
        reason = f"the arguments of {name} are no JSON: {described(call.arguments)}"
    else:
        value = json.loads(call.arguments.strip() or "{}", strict=False)
        if isinstance(value, dict) or value is None:
            return value or {}
        reason = f"the arguments of {name} are {call.arguments}; allowed is a JSON object"
    raise InvalidAnswerError(
        reason, text=call.arguments, finish_reason=finish_reason, uncertainty=uncertainty
    )


def missing_call(
    name: str | None, text: str, finish_reason: str | None, uncertainty: JsonMapping
) -> InvalidAnswerError:
    """Return the error of an answer, `text`, that does not have the call that was due.

    Raises HighUncertaintyError where that is since the model abstained.
    """
    check_not_abstained(uncertainty)
    called = f"a call of {described(name)}" if name else "a call"
    if finish_reason not in _ENDED:
        return incomplete(called, text, finish_reason, uncertainty)
    return InvalidAnswerError(
        f"the model called no tool where {called} was due, it said: {described(text)}",
        text=text,
        finish_reason=finish_reason,
        uncertainty=uncertainty,
    )


def partial_object(text: str) -> Any:
    """Return what there is of a JSON value that may be unfinished, None where it is no JSON."""
    try:
        return from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return None


def _is_whole_answer(text: str, finish_reason: str | None) -> bool:
    if not is_json(text):
        return False
    value = json.loads(text, strict=False)
    may_go_on = isinstance(value, int | float) and not isinstance(value, bool)
    return not may_go_on or finish_reason in _ENDED


def _is_begun(call: ToolCall) -> bool:
    return not call.arguments.strip() or partial_object(call.arguments) is not None


def incomplete(
    name: str, text: str, finish_reason: str | None, uncertainty: JsonMapping | None
) -> IncompleteAnswerError:
    """Return the error of an answer that ended within what was due, of which there is `text`."""
    cause = _CAUSES.get(finish_reason or "stop", _CAUSES["stop"])
    return IncompleteAnswerError(
        f"{name} is not whole: the answer ended within it, since {cause} (finish reason "
        f"{described(finish_reason)}); so far it is {described(text)}",
        text=text,
        finish_reason=finish_reason,
        uncertainty=uncertainty,
    )
