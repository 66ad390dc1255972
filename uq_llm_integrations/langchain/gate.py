"""Letting certain answers through: a gate for chains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from uq_llm_integrations.errors import HighUncertaintyError
from uq_llm_integrations.report.given_metadata import given_metadata
from uq_llm_integrations.report.metadata import check_metadata_condition, is_uncertain
from uq_llm_integrations.strategies.condition_text import as_condition
from uq_llm_integrations.strategies.conditions import Condition

Answer = TypeVar("Answer")


class UncertaintyGate(Runnable[Answer, Answer]):
    """Passes on an answer that is certain enough: a message, a `ScoredText`, or what a model with
    `with_structured_output(..., include_raw=True)` returns.

    For any other it raises HighUncertaintyError, so that `(model | gate).with_retry(...)` samples
    again and `.with_fallbacks([...])` turns to another model. Without a condition, an object or
    its text, the model's own decision counts (`uncertain_when` of its class). A seed that is fixed,
    a temperature of 0 or a cache would make every attempt the same.

    An answer without scores, and one without the scores that the condition needs, raise
    InvalidRequestError; `allow_unscored` lets the former pass.

    Example:
        >>> from uq_llm_integrations import ScriptedBackend
        >>> from uq_llm_integrations.langchain import ChatVLLMUncertainty, UncertaintyGate
        >>> chat = ChatVLLMUncertainty(backend=ScriptedBackend(["Paris"]))
        >>> (chat | UncertaintyGate("entropy > 2")).invoke("Capital of France?").content
        'Paris'
    """

    def __init__(
        self, uncertain_when: Condition | str | None = None, *, allow_unscored: bool = False
    ) -> None:
        self.uncertain_when = None if uncertain_when is None else as_condition(uncertain_when)
        check_metadata_condition(self.uncertain_when)
        self.allow_unscored = allow_unscored

    def invoke(self, input: Answer, config: RunnableConfig | None = None, **kwargs: Any) -> Answer:
        """Return the answer, or raise HighUncertaintyError."""
        return self._call_with_config(self._let_through, input, config)

    async def ainvoke(
        self, input: Answer, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Answer:
        """Return the answer, or raise HighUncertaintyError."""
        return self.invoke(input, config)

    def _let_through(self, answer: Answer) -> Answer:
        uncertainty = uncertainty_of(answer)
        if is_uncertain(self.uncertain_when, uncertainty, allow_unscored=self.allow_unscored):
            raise refusal(self.uncertain_when, text_of(answer), uncertainty or {})
        return answer


def uncertainty_of(answer: Any) -> Mapping[str, Any] | None:
    """Return the metadata of an answer's uncertainty, None where it has none.

    Raises InvalidRequestError for metadata that cannot be read.
    """
    answer = _raw(answer)
    found = (
        answer.response_metadata.get("uncertainty")
        if isinstance(answer, BaseMessage)
        else getattr(answer, "uncertainty", None)
    )
    return None if found is None else given_metadata(found)


def text_of(answer: Any) -> str:
    """Return the text of an answer."""
    return str(_raw(answer).text)


def _raw(answer: Any) -> Any:
    return answer["raw"] if isinstance(answer, Mapping) and "raw" in answer else answer


def refusal(
    condition: Condition | None, text: str, uncertainty: Mapping[str, Any]
) -> HighUncertaintyError:
    """Return the error that says why an answer was not let through."""
    reason = repr(condition) if condition is not None else uncertainty.get("condition")
    return HighUncertaintyError(reason, text=text, uncertainty=uncertainty)
