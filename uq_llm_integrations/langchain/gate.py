"""Letting certain answers through: a gate for chains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from uq_llm_integrations.adapters.verdict import check_verdict, is_uncertain
from uq_llm_integrations.decoding.conditions import Condition
from uq_llm_integrations.errors import HighUncertaintyError, InvalidRequestError

Answer = TypeVar("Answer")


class UncertaintyGate(Runnable[Answer, Answer]):
    """Passes on a message (or a `ScoredText`) that is certain enough.

    For any other it raises HighUncertaintyError, so that `(model | gate).with_retry(...)` draws
    again and `.with_fallbacks([...])` asks another model. Without a condition, the model's own
    decision counts (`uncertain_when` of its class). A seed that is fixed, a temperature of 0 or a
    cache would make every attempt the same.
    """

    def __init__(self, uncertain_when: Condition | None = None) -> None:
        if uncertain_when is not None:
            check_verdict(uncertain_when)
        self.uncertain_when = uncertain_when

    def invoke(self, input: Answer, config: RunnableConfig | None = None, **kwargs: Any) -> Answer:
        """Return the answer, or raise HighUncertaintyError."""
        uncertainty = uncertainty_of(input)
        if is_uncertain(self.uncertain_when, uncertainty):
            raise refusal(self.uncertain_when, text_of(input), uncertainty)
        return input

    async def ainvoke(
        self, input: Answer, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Answer:
        """Return the answer, or raise HighUncertaintyError."""
        return self.invoke(input, config)


def uncertainty_of(answer: Any) -> Mapping[str, Any]:
    """Return what an answer tells of its uncertainty; InvalidRequestError where it tells nothing.

    A text alone has lost its scores: put the gate right behind the model.
    """
    told = (
        answer.response_metadata.get("uncertainty")
        if isinstance(answer, BaseMessage)
        else getattr(answer, "uncertainty", None)
    )
    if told is None:
        raise InvalidRequestError(
            "the answer has no scores: a gate stands right behind one of this package's chat models"
        )
    found: Mapping[str, Any] = told
    return found


def text_of(answer: Any) -> str:
    """Return the text of a message or of a `ScoredText`."""
    return str(answer.text)


def refusal(
    condition: Condition | None, text: str, uncertainty: Mapping[str, Any]
) -> HighUncertaintyError:
    """Return the error that says why an answer was not let through."""
    told = repr(condition) if condition is not None else uncertainty.get("condition")
    return HighUncertaintyError(condition=told, text=text, uncertainty=uncertainty)
