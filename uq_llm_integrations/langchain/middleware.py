"""A gate for LangChain's agents: only certain answers and tool calls pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolCall, ToolMessage

from uq_llm_integrations.errors import (
    ConfigurationError,
    HighUncertaintyError,
    MissingDependencyError,
    described,
)  # fmt: skip  # a list of names
from uq_llm_integrations.langchain.chat import UncertaintyChat
from uq_llm_integrations.langchain.gate import refusal, uncertainty_of
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.report.metadata import (
    check_metadata_condition,
    is_uncertain,
    part_metadata,
)  # fmt: skip  # a list of names
from uq_llm_integrations.strategies.base import Single, check_count
from uq_llm_integrations.strategies.condition_text import as_condition
from uq_llm_integrations.strategies.conditions import Condition

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        ModelRequest,
        ModelResponse,
        hook_config,
    )  # fmt: skip  # a list of names
    from langchain.agents.middleware.types import ToolCallRequest
except ImportError as error:
    raise MissingDependencyError("langchain", "agents") from error

from uq_llm_integrations.langchain.review import ModelTurn, decided
from uq_llm_integrations.langchain.review_outcome import outcome

Then = Literal["raise", "ask", "annotate"]

_EDITED_CALLS = "hitl_edited_tool_calls"
"""Where an agent's state has the calls that a person edited for `HumanInTheLoopMiddleware`."""


class UncertaintyGateMiddleware(AgentMiddleware[Any, Any, Any]):
    """Retries uncertain answers of an agent's model, tries another model, and then asks a person.

    An answer for which `uncertain_when` (an object or its text) holds, or cannot be known not to,
    is sampled again up to `retries` times, with a seed of its own and at `temperature`. Then the
    `fallback` model answers. What is still uncertain is left as it is ('annotate'), raises
    HighUncertaintyError ('raise'), or is shown to a person ('ask').

    To ask, the run is interrupted, which needs a checkpointer, by the protocol of LangChain's
    `HumanInTheLoopMiddleware`: the interrupt has `action_requests`, `review_configs` and the
    answer's `uncertainty`, and `Command(resume={"decisions": [...]})` goes on with a decision for
    each action: `{"type": "approve"}`, `{"type": "edit", "edited_action": {"name": ..., "args":
    {...}}}`, `{"type": "reject", "message": ...}`, and for calls of tools `{"type": "respond",
    "message": ...}`. An answer without calls is an action "answer" with the argument `text`. What
    was edited is marked as a person's and has no scores; the draft and its scores are kept beside
    it. Anything else raises InvalidRequestError, and the run can be resumed again.

    With `guard_tools`, a tool whose own call was uncertain, or has no scores, is not run unless a
    person has approved or edited it; the model is informed. With `allow_unscored`, a call without
    scores is run. An answer without scores, such as another provider's,
    raises InvalidRequestError unless `allow_unscored`, and so does one without the scores that the
    condition needs. Put this gate last in the list of middleware, next to the model.
    """

    def __init__(
        self,
        uncertain_when: Condition | str | None = None,
        *,
        retries: int = 1,
        temperature: float = 0.7,
        fallback: BaseChatModel | None = None,
        then: Then = "raise",
        guard_tools: bool = True,
        allow_unscored: bool = False,
    ) -> None:
        super().__init__()
        self._when = None if uncertain_when is None else as_condition(uncertain_when)
        check_metadata_condition(self._when)
        if then not in get_args(Then):
            raise ConfigurationError(
                f"then is {described(then)}; allowed are {', '.join(get_args(Then))}"
            )
        check_count("retries", retries, 0)
        _check_fallback(self._when, fallback)
        self._then, self._guards, self._allows = then, guard_tools, allow_unscored
        self._retries, self._temperature, self._fallback = retries, temperature, fallback

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Call the model, again where its answer is uncertain, and then the other one."""
        *attempts, last = self._attempts(request)
        for attempt in attempts:
            try:
                response = handler(attempt)
            except HighUncertaintyError:
                continue  # the model itself says so
            if not self._is_uncertain(response):
                return response
        return self._concluded(handler(last))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Call the model, again where its answer is uncertain, and then the other one."""
        *attempts, last = self._attempts(request)
        for attempt in attempts:
            try:
                response = await handler(attempt)
            except HighUncertaintyError:
                continue
            if not self._is_uncertain(response):
                return response
        return self._concluded(await handler(last))

    @hook_config(can_jump_to=["model"])
    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Ask a person about an answer that is still uncertain, where that was wanted."""
        turn = ModelTurn.of(state) if self._then == "ask" else None
        if turn is None:
            return None
        found = uncertainty_of(turn.message)
        if found is None or not self._doubts(turn.message):
            return None
        is_whole = is_uncertain(self._when, found)
        actions = turn.actions(lambda call: is_whole or self._doubts_call(turn.message, call))
        if not actions:
            return None
        condition = found.get("condition") if self._when is None else repr(self._when)
        decisions = decided(actions, condition, found)
        return outcome(turn, list(zip(actions, decisions, strict=True)))

    @hook_config(can_jump_to=["model"])
    async def aafter_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Ask a person about an answer that is still uncertain, where that was wanted."""
        return self.after_model(state, runtime)

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]
    ) -> Any:
        """Run a tool unless its call was uncertain."""
        return self._refused(request) or handler(request)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        """Run a tool unless its call was uncertain."""
        return self._refused(request) or await handler(request)

    def _attempts(self, request: ModelRequest[Any]) -> list[ModelRequest[Any]]:
        again = [
            request.override(
                model_settings={
                    **request.model_settings,
                    "seed": attempt,
                    "temperature": self._temperature,
                }
            )
            for attempt in range(1, self._retries + 1)
        ]
        other = [request.override(model=self._fallback)] if self._fallback else []
        return [request, *again, *other]

    def _is_uncertain(self, response: ModelResponse[Any]) -> bool:
        answers = [one for one in response.result if isinstance(one, AIMessage)]
        return any(map(self._doubts, answers))

    def _doubts(self, message: AIMessage) -> bool:
        """Return whether an answer is uncertain, or any of its calls, where tools are guarded."""
        found = uncertainty_of(message)
        if is_uncertain(self._when, found, allow_unscored=self._allows):
            return True
        calls = message.tool_calls if self._guards else ()
        return any(self._doubts_call(message, one) for one in calls)

    def _doubts_call(self, message: AIMessage | None, call: ToolCall) -> bool:
        """Return whether a call is uncertain; one without scores is, unless they may be missing."""
        found = _call_metadata(message, call)
        if not found:
            return not self._allows
        return any(is_uncertain(self._when, one) for one in found)

    def _concluded(self, response: ModelResponse[Any]) -> ModelResponse[Any]:
        for message in response.result:
            doubted = isinstance(message, AIMessage) and self._doubts(message)
            if doubted and self._then == "raise":
                raise refusal(self._when, str(message.text), uncertainty_of(message) or {})
        return response

    def _refused(self, request: ToolCallRequest) -> ToolMessage | None:
        """Return the message in place of the tool's result, None where it may run."""
        call, state = request.tool_call, request.state
        if not self._guards or call["id"] in (state.get(_EDITED_CALLS) or ()):
            return None
        message = _message_with(state["messages"], call)
        if not self._doubts_call(message, call):
            return None
        why = "you were too uncertain of this call"
        if not _call_metadata(message, call):
            why = "nobody knows how certain you were of this call, which has no scores"
        return ToolMessage(
            content=f"{call['name']} was not run: {why}.",
            name=call["name"],
            tool_call_id=str(call["id"]),
            status="error",
        )


def _message_with(messages: Sequence[Any], call: ToolCall) -> AIMessage | None:
    """Return the last message that makes a call."""
    made = (one for one in reversed(messages) if isinstance(one, AIMessage))
    return next((one for one in made if any(_is_it(call, each) for each in one.tool_calls)), None)


def _call_metadata(message: AIMessage | None, call: ToolCall) -> list[Mapping[str, Any]]:
    """Return the metadata of a call, with its message's decision: of all with its id and name."""
    whole = (uncertainty_of(message) if message else None) or {}
    return [part_metadata(whole, one) for one in whole.get("tool_calls", ()) if _is_it(call, one)]


def _is_it(call: ToolCall, other: Mapping[str, Any]) -> bool:
    return bool(call["id"] == other["id"] and call["name"] == other["name"])


def _check_fallback(when: Condition | None, fallback: BaseChatModel | None) -> None:
    """Raise ConfigurationError where a model is known not to compute what a condition needs."""
    if when is None or not isinstance(fallback, UncertaintyChat):
        return
    own = (*fallback.core.methods, *fallback.policy.methods)
    computed = {find_method(name) for name in own}
    missing = [name for name in when.methods if find_method(name) not in computed]
    if missing and isinstance(fallback.strategy, Single):  # others may compute more
        raise ConfigurationError(
            f"the condition {described(when)} needs {', '.join(missing)}, which the fallback does "
            f"not compute; add to its methods: methods={described(missing)}"
        )
    if when.token_methods and not fallback.token_scores:
        raise ConfigurationError(
            f"the condition {described(when)} needs a fallback with token_scores=True"
        )
