"""Scores for those who watch: as LangSmith feedback, and on OpenTelemetry spans."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from uq_llm_integrations.errors import MissingDependencyError


class LangSmithFeedbackHandler(BaseCallbackHandler):
    """Sends each score of an answer as feedback on its run, so that runs can be filtered by it.

    `client` is a `langsmith.Client`. A score that is not known is not sent.
    """

    def __init__(self, client: Any, prefix: str = "uq_") -> None:
        self._client, self._prefix = client, prefix

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Send the scores of the first answer of each prompt."""
        for told in _first_answers(response):
            for name, value in told["scores"].items():
                if value is not None:
                    self._client.create_feedback(run_id, key=f"{self._prefix}{name}", score=value)


class OpenTelemetryHandler(BaseCallbackHandler):
    """Writes the scores of an answer on the current span: `uq.entropy`, `uq.decision`, ...

    Needs `opentelemetry-api`.
    """

    run_inline = True  # the span is current in the caller's context alone

    def __init__(self, prefix: str = "uq.") -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise MissingDependencyError("opentelemetry-api", "opentelemetry") from error
        self._trace, self._prefix = trace, prefix

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Write the scores of the last prompt's first answer."""
        span = self._trace.get_current_span()
        for told in _first_answers(response):
            known = {name: value for name, value in told["scores"].items() if value is not None}
            known |= {"decision": told["decision"], "uncertain": told["uncertain"]}
            for name, value in known.items():
                span.set_attribute(f"{self._prefix}{name}", value)


def _first_answers(response: LLMResult) -> Iterator[dict[str, Any]]:
    for generations in response.generations:
        told = (generations[0].generation_info or {}).get("uncertainty") if generations else None
        if told is not None:
            yield told
