"""The answer by schema of an agent: an abstention cannot stand in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.tools import StructuredTool

from uq_llm_integrations.errors import HighUncertaintyError
from uq_llm_integrations.records import JsonObject, Result

OBJECT_DUE = "object_due"
"""The argument of a call by which the model knows that its answer is to be an object."""


def answers_by_schema(
    tools: Sequence[object], tool_choice: object, options: Mapping[str, object]
) -> bool:
    """Return whether tools are bound by an agent whose answer is an object.

    Agents give the schema as a tool that nobody can run, or as the format of the response.
    """
    schemas = [
        one
        for one in tools
        if isinstance(one, StructuredTool) and one.func is None and one.coroutine is None
    ]
    return bool(schemas and tool_choice) or "response_format" in options


def check_object(result: Result, uncertainty: JsonObject) -> None:
    """Raise HighUncertaintyError, with the draft and its scores, where the model abstained."""
    decision = result.decision
    if decision.action == "abstained":
        raise HighUncertaintyError(
            decision.condition, text=result.candidate.text, uncertainty=uncertainty
        )
