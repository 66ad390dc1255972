"""The uncertainty of an answer in the shape of LlamaIndex's evaluators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.response.schema import Response
from llama_index.core.evaluation.base import BaseEvaluator, EvaluationResult
from llama_index.core.prompts.mixin import PromptDictType

from uq_llm_integrations.errors import InvalidRequestError
from uq_llm_integrations.records import NOT_REQUESTED
from uq_llm_integrations.report.given_metadata import given_metadata
from uq_llm_integrations.report.metadata import (
    GROUNDING,
    check_metadata_condition,
    is_uncertain,
)
from uq_llm_integrations.strategies.condition_text import as_condition
from uq_llm_integrations.strategies.conditions import Condition


class UncertaintyEvaluator(BaseEvaluator):
    """Passes answers that are certain enough, for `RetryQueryEngine` and evaluation runs.

    It reads the metadata that `UncertaintyQueryEngine` writes. `score` is the final answer's score
    by `method`, higher is more uncertain; of an answer in parts, that of one that is too uncertain.
    `RetryQueryEngine` puts the feedback into a new question; to sample the same answer again, use
    `UncertaintyQueryEngine(retries=...)`.
    """

    def __init__(self, uncertain_when: Condition | str, method: str | None = None) -> None:
        self._when = as_condition(uncertain_when)
        check_metadata_condition(self._when)
        self._method = method or next(iter(self._when.methods), None)

    def _get_prompts(self) -> PromptDictType:
        """Return nothing: there is no prompt."""
        return {}

    def _update_prompts(self, prompts_dict: PromptDictType) -> None:
        """Change nothing: there is no prompt."""

    def evaluate_response(
        self, query: str | None = None, response: Response | None = None, **kwargs: Any
    ) -> EvaluationResult:
        """Return whether the response is certain enough."""
        metadata = (response.metadata if response else None) or {}
        if "uncertainty" not in metadata:
            raise InvalidRequestError(
                "the response has no scores; let an UncertaintyQueryEngine give it"
            )
        summary = given_metadata(metadata["uncertainty"])
        given = summary.get("parts") or [summary.get("final")]
        parts = [_grounded(one, summary) for one in given]
        doubtful = [one for one in parts if one is None or is_uncertain(self._when, one)]
        uncertain, final = bool(doubtful), (doubtful or parts)[-1]
        score = (final or {}).get("scores", {}).get(self._method) if self._method else None
        return EvaluationResult(
            query=query,
            response=response.response if response else None,
            passing=not uncertain,
            score=score,
            feedback=f"The answer is {'too uncertain' if uncertain else 'certain enough'}: "
            f"it is too uncertain where {self._when!r}{self._found(final)}.",
        )

    def _found(self, final: dict[str, Any] | None) -> str:
        """Return what is known of the score, or why nothing is, as the end of a sentence."""
        if final is None:
            return ", and no model with scores has said it"
        if self._method is None:
            return ""
        score = final.get("scores", {}).get(self._method)
        reason = final.get("reasons", {}).get(self._method) or NOT_REQUESTED
        return f", and {self._method} is {f'not known: {reason}' if score is None else score}"

    async def aevaluate_response(
        self, query: str | None = None, response: Response | None = None, **kwargs: Any
    ) -> EvaluationResult:
        """Return whether the response is certain enough."""
        return self.evaluate_response(query, response, **kwargs)

    async def aevaluate(
        self,
        query: str | None = None,
        response: str | None = None,
        contexts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EvaluationResult:
        """Refuse text alone: it has no scores."""
        raise InvalidRequestError("a text alone has no scores; evaluate a response")


def _grounded(part: dict[str, Any] | None, summary: dict[str, Any]) -> dict[str, Any] | None:
    """Return the metadata of a part, with how far the answer rests on its sources."""
    if part is None or GROUNDING not in summary:
        return part
    return {**part, GROUNDING: summary[GROUNDING]}
