"""What becomes of an agent's turn by a person's decisions about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.messages.tool import tool_call

from uq_llm_integrations.langchain.review import Action, HumanDecision, ModelTurn
from uq_llm_integrations.records import JsonObject
from uq_llm_integrations.report.metadata import APPROVED

PERSON = "person"

_MARKS: Mapping[str, JsonObject] = {
    "approve": {APPROVED: True},
    "edit": {APPROVED: True, "edited_by": PERSON, "uncertain": False},
    "reject": {"rejected_by": PERSON},
    "respond": {"answered_by": PERSON},
}
"""What the metadata of an action say by the decision about it."""

_MEASURED = {
    "exact", "grammar", "tokens", "intervals", "sources", "token_scores", "claim_scores",
    "by_token", "answer", "reasoning", "fields", "condition", "original_text",
}  # fmt: skip  # a list of names
"""What metadata say of the tokens that the model wrote, beside their scores."""

Pairs = Sequence[tuple[Action, HumanDecision]]


def outcome(turn: ModelTurn, pairs: Pairs) -> JsonObject:
    """Return the changes of the agent's state.

    What was edited takes the place of the draft, in the message and in the object read from it. A
    rejection is a message to the model, which answers again.
    """
    replies = [reply for pair in pairs if (reply := _reply(turn, *pair))]
    changes: JsonObject = {"messages": [_reviewed(turn.message, pairs), *replies]}
    for action, decision in pairs:
        if action.draft is not None and decision.type in {"edit", "reject"}:
            changes["structured_response"] = decision.value
        if action.call_id is None and decision.type == "reject":
            changes["jump_to"] = "model"
    return changes


def _reply(turn: ModelTurn, action: Action, decision: HumanDecision) -> BaseMessage | None:
    """Return what the model reads of a decision, None where the call is run or the run ends."""
    notice = {"lc_source": "hitl_interrupt_decision", "lc_data": {"decision": decision.type}}
    content = _content(action, decision)
    if content is None:
        return None
    if action.call_id is None:
        return HumanMessage(content, additional_kwargs=notice)
    earlier = turn.replies.get(action.call_id)
    return ToolMessage(
        content,
        name=action.name,
        tool_call_id=action.call_id,
        status="error" if decision.type == "reject" else "success",
        id=earlier.id if earlier else None,  # it takes the place of one that has the draft
        additional_kwargs=notice,
    )


def _content(action: Action, decision: HumanDecision) -> str | None:
    if decision.type == "respond":
        return decision.message
    if decision.type == "reject":
        return _rejection(action, decision.message)
    if decision.type == "edit" and action.call_id is not None and action.draft is not None:
        return f"Returning structured response: {decision.value}"
    return None


def _rejection(action: Action, reason: str | None) -> str:
    """Return the words of LangChain's own middleware."""
    what = "your answer" if action.call_id is None else f"the tool call for `{action.name}`"
    if reason:
        return f"User rejected {what} with reason: {reason}"
    if action.call_id is None:
        return f"User rejected {what}. Do not give the same answer again."
    return (
        f"User rejected {what} with id {action.call_id}. The tool was not executed. Do not retry "
        "this tool call unless the user explicitly requests it."
    )


def _reviewed(message: AIMessage, pairs: Pairs) -> AIMessage:
    """Return the message with what was edited, and with its metadata saying so."""
    update: JsonObject = {}
    edits = {action.call_id: one for action, one in pairs if one.type == "edit"}
    if None in edits:
        update = {"content": edits[None].args["text"], "invalid_tool_calls": []}
    elif edits:
        update = _with_calls(message, [_edited(one, edits) for one in message.tool_calls])
    metadata = {**message.response_metadata, "uncertainty": _metadata(message, pairs)}
    return message.model_copy(update={**update, "response_metadata": metadata})


def _edited(call: ToolCall, edits: Mapping[str | None, HumanDecision]) -> ToolCall:
    edit = edits.get(call["id"])
    return call if edit is None else tool_call(name=edit.name, args=edit.args, id=call["id"])


def _with_calls(message: AIMessage, calls: list[ToolCall]) -> JsonObject:
    """Return the changes that give a message these calls, also where its content repeats them."""
    by_id = {one["id"]: one for one in calls}
    if isinstance(message.content, str):
        return {"tool_calls": calls}
    content = [
        {**one, **by_id.get(one.get("id"), {})} if isinstance(one, dict) else one
        for one in message.content
    ]
    return {"tool_calls": calls, "content": content}


def _metadata(message: AIMessage, pairs: Pairs) -> JsonObject:
    """Return the metadata of the message after all decisions; of one with an edit, with the draft.

    The message has the mark of its only decision. Of several it is approved where none was refused,
    and edited where any was.
    """
    found: JsonObject = message.response_metadata["uncertainty"]
    types = [decision.type for _, decision in pairs]
    refused = next((one for one in types if one in {"reject", "respond"}), None)
    whole = _marked(found, "edit" if "edit" in types else refused or "approve")
    if "edit" in types:
        draft = {"text": str(message.text), "tool_calls": message.tool_calls, "uncertainty": found}
        whole |= {"decision": "accepted", "draft": draft}
    if refused:
        whole.pop(APPROVED, None)
    marks = {action.call_id: (action, decision) for action, decision in pairs}
    if calls := [*found.get("tool_calls", ()), *_unscored(found, pairs)]:
        whole["tool_calls"] = [_call_metadata(one, marks.get(one["id"])) for one in calls]
    return whole


def _unscored(found: JsonObject, pairs: Pairs) -> list[JsonObject]:
    """Return the calls that were decided about, but have no metadata."""
    known = {one["id"] for one in found.get("tool_calls", ())}
    actions = (action for action, _ in pairs if action.call_id is not None)
    return [{"name": one.name, "id": one.call_id} for one in actions if one.call_id not in known]


def _call_metadata(call: JsonObject, decided: tuple[Action, HumanDecision] | None) -> JsonObject:
    if decided is None:
        return call
    decision = decided[1]
    named = {"name": decision.name} if decision.type == "edit" else {}
    return {**_marked(call, decision.type), **named}


def _marked(metadata: JsonObject, kind: str) -> JsonObject:
    """Return metadata with the mark of a decision; what a person wrote has no scores."""
    if kind != "edit":
        return {**metadata, **_MARKS[kind]}
    names = metadata.get("scores", {})
    kept = {name: one for name, one in metadata.items() if name not in _MEASURED}
    unscored = {
        "scores": dict.fromkeys(names),
        "reasons": dict.fromkeys(names, "a person wrote it, and no model"),
    }
    return {**kept, **unscored, **_MARKS[kind]}
