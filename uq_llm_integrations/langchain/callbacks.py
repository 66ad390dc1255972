"""Collecting the uncertainty of every model call within a chain run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult


@dataclass(frozen=True)
class CollectedCall:
    """One answer of a model within a run."""

    run_id: UUID
    parent_run_id: UUID | None
    tags: tuple[str, ...]
    text: str
    uncertainty: dict[str, Any]


class UncertaintyCallbackHandler(BaseCallbackHandler):
    """Pass it as `config={"callbacks": [handler]}`; `calls` then has every scored answer."""

    def __init__(self) -> None:
        self.calls: list[CollectedCall] = []

    def on_llm_end(
        self,
        response: LLMResult,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep what the finished call says of its answers; models without scores are passed by."""
        for generation in (one for many in response.generations for one in many):
            uncertainty = (generation.generation_info or {}).get("uncertainty")
            if uncertainty is not None:
                self.calls.append(
                    CollectedCall(
                        run_id, parent_run_id, tuple(tags or ()), generation.text, uncertainty
                    )
                )
