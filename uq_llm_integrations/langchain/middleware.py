"""A gate for LangChain's agents: only certain answers and tool calls pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage

from uq_llm_integrations.errors import ConfigurationError, MissingDependencyError
from uq_llm_integrations.langchain.gate import refusal, uncertainty_of
from uq_llm_integrations.report.metadata import check_metadata_condition, is_uncertain
from uq_llm_integrations.strategies.base import check_count
from uq_llm_integrations.strategies.condition_text import as_condition
from uq_llm_integrations.strategies.conditions import Condition

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
    from langchain.agents.middleware.types import ToolCallRequest
    from langgraph.types import interrupt
except ImportError as error:
    raise MissingDependencyError("langchain", "agents") from error

Then = Literal["raise", "ask", "annotate"]

APPROVED = "approved"


class UncertaintyGateMiddleware(AgentMiddleware[Any, Any, Any]):
    """Retries uncertain answers of an agent's model, tries another model, and then asks a person.

    An answer for which `uncertain_when` (an object or its text) holds, or cannot be known not to,
    is sampled again up to `retries` times, with a seed of its own and at `temperature`. Then the
    `fallback` model answers, whose answer counts where it has no scores. What is still uncertain is
    left as it is ('annotate'), raises HighUncertaintyError ('raise'), or is shown to a person
    ('ask'): the run is interrupted, which needs a checkpointer, and `Command(resume="approve")`
    lets the answer through, while `Command(resume=<text>)` puts a text in its place.

    With `guard_tools`, a tool whose own call was uncertain is not run unless a person has approved;
    the model is informed. Put this gate last in the list of middleware, next to the model.
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
    ) -> None:
        super().__init__()
        self._when = None if uncertain_when is None else as_condition(uncertain_when)
        check_metadata_condition(self._when)
        if then not in get_args(Then):
            raise ConfigurationError(f"then is {then!r}; allowed are {', '.join(get_args(Then))}")
        check_count("retries", retries, 0)
        self._then, self._guards = then, guard_tools
        self._retries, self._temperature, self._fallback = retries, temperature, fallback

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Call the model, again where its answer is uncertain, and then the other one."""
        attempts = self._attempts(request)
        response = handler(attempts[0])
        for attempt in attempts[1:]:
            if not self._is_uncertain(response):
                return response
            response = handler(attempt)
        return self._concluded(response)

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Call the model, again where its answer is uncertain, and then the other one."""
        attempts = self._attempts(request)
        response = await handler(attempts[0])
        for attempt in attempts[1:]:
            if not self._is_uncertain(response):
                return response
            response = await handler(attempt)
        return self._concluded(response)

    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Ask a person about an answer that is still uncertain, where that was wanted."""
        message = state["messages"][-1]
        if self._then != "ask" or not self._doubts(message):
            return None
        found = message.response_metadata["uncertainty"]
        question = {"text": message.text, "tool_calls": message.tool_calls, "uncertainty": found}
        answer = interrupt(question)
        metadata = {**message.response_metadata, "uncertainty": {**found, APPROVED: True}}
        changes: dict[str, Any] = {"response_metadata": metadata}
        if answer != "approve":
            changes |= {"content": str(answer), "tool_calls": []}
        return {"messages": [message.model_copy(update=changes)]}

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
        return any(map(self._doubts, response.result))

    def _doubts(self, message: Any) -> bool:
        """Return whether a message has uncertain scores, and nobody has approved it."""
        if not isinstance(message, AIMessage) or "uncertainty" not in message.response_metadata:
            return False
        whole = message.response_metadata["uncertainty"]
        calls = [_of_call(whole, one) for one in whole.get("tool_calls", ()) if self._guards]
        return not whole.get(APPROVED) and any(
            is_uncertain(self._when, one) for one in [whole, *calls]
        )

    def _concluded(self, response: ModelResponse[Any]) -> ModelResponse[Any]:
        if self._then == "raise" and self._is_uncertain(response):
            message = next(one for one in response.result if self._doubts(one))
            raise refusal(self._when, str(message.text), uncertainty_of(message))
        return response

    def _refused(self, request: ToolCallRequest) -> ToolMessage | None:
        """Return the message in place of the tool's result, None where it may run."""
        call = request.tool_call
        messages = request.state["messages"] if self._guards else []
        metadata = _call_metadata(messages, str(call["id"]))
        if metadata is None or not is_uncertain(self._when, metadata):
            return None
        return ToolMessage(
            content=f"{call['name']} was not run: you were too uncertain of this call.",
            name=call["name"],
            tool_call_id=str(call["id"]),
            status="error",
        )


def _call_metadata(messages: list[Any], call_id: str) -> Mapping[str, Any] | None:
    """Return the metadata of a call, with its message's decision; None where it may run anyway."""
    for message in reversed(messages):
        whole = getattr(message, "response_metadata", {}).get("uncertainty", {})
        for call in whole.get("tool_calls", ()):
            if call["id"] == call_id:
                return None if whole.get(APPROVED) else _of_call(whole, call)
    return None


def _of_call(whole: Mapping[str, Any], call: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"uncertain": whole["uncertain"], **call}
