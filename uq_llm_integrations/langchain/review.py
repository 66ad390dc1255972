"""A person's review of an uncertain message, by the protocol of LangChain's human in the loop.

An interrupt's value is a `HITLRequest`, and the run is resumed by a `HITLResponse`, as with
`HumanInTheLoopMiddleware`. An answer without calls is an action of its own, named "answer".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Annotated, Any, Self

from langchain.agents.middleware.human_in_the_loop import (
    ActionRequest,
    DecisionType,
    HITLRequest,
    HITLResponse,
    ReviewConfig,
)
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langgraph.types import interrupt
from pydantic import TypeAdapter, ValidationError, WrapValidator

from uq_llm_integrations.coercion import validation_text
from uq_llm_integrations.errors import InvalidRequestError, described
from uq_llm_integrations.records import JsonMapping, JsonObject

ANSWER = "answer"
"""The name of the action that an answer without calls is."""

ALL_DECISIONS: tuple[DecisionType, ...] = ("approve", "edit", "reject", "respond")

_FIELDS: Mapping[DecisionType, tuple[str, ...]] = {
    "approve": (),
    "edit": ("edited_action",),
    "reject": ("message",),
    "respond": ("message",),
}
"""The types of decisions, and what each has beside its type."""

_FORM = (
    '{"decisions": [...]}, for each action in its order {"type": "approve"}, {"type": "reject", '
    '"message": ...} or {"type": "edit", "edited_action": {"name": ..., "args": {...}}}'
)


@dataclass(frozen=True, eq=False)
class Action:
    """What a person decides about: a call, an answer by schema, or an answer without calls.

    `draft` is the object that was read from it, where there is one.
    """

    name: str
    args: JsonObject
    allowed: tuple[DecisionType, ...] = ("approve", "edit", "reject")
    call_id: str | None = None
    draft: Any = None


@dataclass(frozen=True, eq=False)
class HumanDecision:
    """What a person has decided about an action; `value` is the object that an edit makes."""

    type: str
    message: str | None = None
    name: str = ""
    args: JsonObject = field(default_factory=dict)
    value: Any = None


@dataclass(frozen=True, eq=False)
class ModelTurn:
    """The model's last message, the replies that its calls have, and the object read from it."""

    message: AIMessage
    replies: Mapping[str, ToolMessage]
    draft: Any

    @classmethod
    def of(cls, state: JsonMapping) -> Self | None:
        """Return the last turn of an agent's state, None where there is none."""
        messages = state["messages"]
        for at in reversed(range(len(messages))):
            if isinstance(message := messages[at], AIMessage):
                later = (one for one in messages[at + 1 :] if isinstance(one, ToolMessage))
                replies = {one.tool_call_id: one for one in later}
                return cls(message, replies, state.get("structured_response"))
        return None

    def actions(self, is_doubted: Callable[[ToolCall], bool]) -> list[Action]:
        """Return what a person decides about: the calls that are doubted, or the answer.

        A call that failed already, since it is no object of the schema, is left out.
        """
        calls = self.message.tool_calls
        if not calls:
            return [Action(ANSWER, {"text": str(self.message.text)}, draft=self.draft)]
        doubted = [one for one in calls if is_doubted(one)]
        fresh = [one for one in doubted if one["id"] not in self.replies or self.draft is not None]
        return [self._call_action(one["name"], one["args"], one["id"]) for one in fresh]

    def _call_action(self, name: str, args: JsonObject, call_id: str | None) -> Action:
        if call_id in self.replies:
            return Action(name, args, call_id=call_id, draft=self.draft)
        return Action(name, args, ALL_DECISIONS, call_id)


def decided(
    actions: Sequence[Action], condition: str | None, uncertainty: JsonMapping
) -> list[HumanDecision]:
    """Interrupt the run, and return what a person decides about each action when it is resumed.

    Raises InvalidRequestError for anything but one allowed decision for each action; it is not
    kept, so that the run can be resumed again.
    """
    value = {**_request(actions, condition), "uncertainty": uncertainty}
    form: Any = Annotated[HITLResponse, WrapValidator(lambda one, _: decisions_of(one, actions))]
    try:
        if "response_schema" in signature(interrupt).parameters:
            found = interrupt(value, response_schema=form)
        else:  # an older LangGraph
            found = TypeAdapter(form).validate_python(interrupt(value))
    except ValidationError as error:
        # Pydantic wraps what a validator raises; callers are promised our own errors.
        raise error.errors()[0]["ctx"]["error"] from None
    decisions: list[HumanDecision] = found
    return decisions


def _request(actions: Sequence[Action], condition: str | None) -> HITLRequest:
    """Return the request for a person's decisions."""
    why = f"The model is too uncertain: {condition or 'it says so itself'}"
    return HITLRequest(
        action_requests=[
            ActionRequest(
                name=one.name,
                args=one.args,
                description=f"{why}\n\n{_kind(one)}: {one.name}\nArgs: {one.args}",
            )
            for one in actions
        ],
        review_configs=[
            ReviewConfig(action_name=one.name, allowed_decisions=list(one.allowed))
            for one in actions
        ],
    )


def _kind(action: Action) -> str:
    return "Answer" if action.call_id is None else "Tool"


def decisions_of(response: object, actions: Sequence[Action]) -> list[HumanDecision]:
    """Return the decisions of a `HITLResponse`; raise InvalidRequestError for anything else."""
    given = response.get("decisions") if isinstance(response, Mapping) else None
    if not isinstance(response, Mapping) or response.keys() != {"decisions"}:
        raise InvalidRequestError(
            f"the run was resumed with {described(response)}; allowed is {_FORM}"
        )
    if not isinstance(given, list | tuple) or len(given) != len(actions):
        names = ", ".join(one.name for one in actions)
        raise InvalidRequestError(
            f"decisions is {described(given)}; allowed is a list of {len(actions)}, one for each "
            f"action in their order ({names})"
        )
    pairs = zip(given, actions, strict=True)
    return [_decision(one, action, i) for i, (one, action) in enumerate(pairs)]


def _decision(given: object, action: Action, index: int) -> HumanDecision:
    place = f"decisions[{index}]"
    if not isinstance(given, Mapping) or given.get("type") not in action.allowed:
        raise InvalidRequestError(
            f"{place} is {described(given)}; allowed for {described(action.name)} are the types "
            f"{', '.join(action.allowed)}"
        )
    kind = given["type"]
    for name in given.keys() - {"type", *_FIELDS[kind]}:
        raise InvalidRequestError(
            f"{place} has {described(name)}, which a decision to {kind} has not"
        )
    if kind == "edit":
        return _edit(given.get("edited_action"), action, f"{place}.edited_action")
    message = given.get("message")
    if not isinstance(message, str | None) or (kind == "respond" and message is None):
        raise InvalidRequestError(f"{place}.message is {described(message)}; it must be a text")
    return HumanDecision(kind, message)


def _edit(given: object, action: Action, place: str) -> HumanDecision:
    """Return the decision to edit an action; one that changes nothing approves it."""
    if (
        not isinstance(given, Mapping)
        or given.keys() != {"name", "args"}
        or not isinstance(given["name"], str)
        or not isinstance(given["args"], dict)
    ):
        raise InvalidRequestError(
            f'{place} is {described(given)}; allowed is {{"name": {described(action.name)}, '
            '"args": {...}}'
        )
    if given["name"] == action.name and _written(given["args"]) == _written(action.args):
        return HumanDecision("approve")
    _check_answer(given, action, place)
    edit = HumanDecision("edit", name=given["name"], args=given["args"])
    return edit if action.draft is None else replace(edit, value=_object(edit, action, place))


def _written(args: JsonMapping) -> str:
    """Return arguments as text, in which 1, 1.0 and true differ."""
    return json.dumps(args, sort_keys=True, default=repr)


def _check_answer(given: JsonMapping, action: Action, place: str) -> None:
    """Raise InvalidRequestError where an answer becomes something else."""
    is_answer = action.call_id is None
    if (is_answer or action.draft is not None) and given["name"] != action.name:
        raise InvalidRequestError(
            f"{place}.name is {described(given['name'])}; allowed is {described(action.name)}"
        )
    args = given["args"]
    if is_answer and (args.keys() != {"text"} or not isinstance(args["text"], str)):
        raise InvalidRequestError(f'{place}.args is {described(args)}; allowed is {{"text": ...}}')


def _object(edit: HumanDecision, action: Action, place: str) -> Any:
    """Return the edited object, of the same class as the draft."""
    kind = type(action.draft)
    try:
        data = edit.args if action.call_id else json.loads(edit.args["text"])
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        wrong = validation_text(error)
    except (ValueError, RecursionError) as error:
        wrong = str(error)
    given = f"{place}.args is {described(edit.args)}"
    raise InvalidRequestError(f"{given}, which is no {kind.__name__}: {wrong}")
