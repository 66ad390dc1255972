"""Callback handlers: every call's uncertainty in a list, as LangSmith feedback, on spans."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

from uq_llm_integrations.errors import MissingDependencyError
from uq_llm_integrations.langchain.closed_streams import CollectedCall, ScoredStreamHandler

GROUNDED = "uq_grounding"
"""The name of the event that says how far an answer rests on its sources."""


class UncertaintyCallbackHandler(ScoredStreamHandler):
    """Pass it as `config={"callbacks": [handler]}`; `calls` then has every scored answer.

    Of a stream that is closed before its end, it has what was drawn, with the usage. `groundings`
    has what each `GroundingRunnable` found.
    """

    def __init__(self) -> None:
        self.calls: list[CollectedCall] = []
        self.groundings: list[dict[str, Any]] = []

    def on_llm_end(
        self,
        response: LLMResult,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the answers of a finished call with their scores; other models are passed by."""
        for generation in (one for many in response.generations for one in many):
            uncertainty = (generation.generation_info or {}).get("uncertainty")
            if uncertainty is not None:
                self.calls.append(
                    CollectedCall(
                        run_id, parent_run_id, tuple(tags or ()), generation.text, uncertainty
                    )
                )

    def on_stream_closed(self, call: CollectedCall) -> None:
        """Keep what was drawn of a stream that was closed early."""
        self.calls.append(call)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Keep how far an answer rests on its sources."""
        if name == GROUNDED:
            self.groundings.append(data)


class LangSmithFeedbackHandler(ScoredStreamHandler):
    """Sends each score of an answer as feedback on its run, so that runs can be filtered by it.

    `client` is a `langsmith.Client`. A score that is not known is not sent.
    """

    def __init__(self, client: Any, prefix: str = "uq_") -> None:
        self._client, self._prefix = client, prefix

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Send the scores of the first answer of each prompt."""
        for metadata in _first_answers(response):
            self._send(run_id, metadata)

    def on_stream_closed(self, call: CollectedCall) -> None:
        """Send the scores of what was drawn of a stream that was closed early."""
        self._send(call.run_id, call.uncertainty)

    def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Send the support of an answer by its sources, where it is known."""
        if name == GROUNDED:
            self._send(run_id, {"scores": {"support": data["support"]}})

    def _send(self, run_id: UUID, metadata: dict[str, Any]) -> None:
        for name, value in metadata["scores"].items():
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
        for metadata in _first_answers(response):
            known = {name: value for name, value in metadata["scores"].items() if value is not None}
            known |= {"decision": metadata["decision"], "uncertain": metadata["uncertain"]}
            for name, value in known.items():
                span.set_attribute(f"{self._prefix}{name}", value)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Write the support of an answer by its sources, where it is known."""
        if name == GROUNDED and data["support"] is not None:
            self._trace.get_current_span().set_attribute(f"{self._prefix}support", data["support"])


def _first_answers(response: LLMResult) -> Iterator[dict[str, Any]]:
    for generations in response.generations:
        info = (generations[0].generation_info or {}) if generations else {}
        metadata = info.get("uncertainty")
        if metadata is not None:
            yield metadata
