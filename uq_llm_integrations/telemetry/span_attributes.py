"""What a span says of a request and its result, by OpenTelemetry's names where it has them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from uq_llm_integrations.records import Request, Result

Attributes = dict[str, Any]

PROVIDER = "uq_llm_integrations"

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable by which texts are captured: `true`, `span_only`, `event_only` (log records) or
`span_and_event`."""

_SAMPLING = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "max_tokens": int,
    "seed": int,
    "frequency_penalty": float,
    "presence_penalty": float,
}


def is_captured(where: str) -> bool:
    """Return whether texts go into a 'span' or, as an 'event', into a log record."""
    value = os.environ.get(CAPTURE, "").strip().lower()
    return value in ("true", f"{where}_only", "span_and_event")


def common_attributes(operation: str, model: str) -> Attributes:
    """Return what spans and metrics of a call have in common."""
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
    }


def request_attributes(request: Request) -> Attributes:
    """Return the sampling parameters, and the messages where they are captured."""
    found: Attributes = {
        f"gen_ai.request.{name}": kind(request.sampling[name])
        for name, kind in _SAMPLING.items()
        if request.sampling.get(name) is not None
    }
    if stop := request.sampling.get("stop"):
        found["gen_ai.request.stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    if request.n != 1:
        found["gen_ai.request.choice.count"] = request.n
    if is_captured("span"):
        found["gen_ai.input.messages"] = json.dumps(asked(request), ensure_ascii=False, default=str)
    return found


def result_attributes(result: Result) -> Attributes:
    """Return usage, scores and the decision, and the answers where they are captured."""
    usage, decision = result.usage, result.decision
    found: Attributes = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.generated_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.response.finish_reasons": [one.finish_reason or "" for one in result.candidates],
        "uq_llm.decision": decision.action,
        "uq_llm.uncertain": decision.is_uncertain,
        "uq_llm.sampling_end": result.sampling_end.kind,
        "uq_llm.usage.scored_tokens": usage.scored_tokens,
        "uq_llm.usage.saved_tokens": usage.saved_tokens,
    }
    if (confidence := result.confidence) is not None:
        found["uq_llm.confidence"] = confidence
    found |= {f"uq_llm.score.{name}": value for name, value in known_scores(result).items()}
    if is_captured("span"):
        found["gen_ai.output.messages"] = json.dumps(answered(result), ensure_ascii=False)
    return found


def known_scores(result: Result) -> Mapping[str, float]:
    """Return the chosen candidate's scores that are numbers."""
    pairs = ((name, score.value) for name, score in result.scores[0].items())
    return {name: value for name, value in pairs if value is not None}


def unknown_scores(result: Result) -> list[str]:
    """Return the names of the chosen candidate's scores of which nothing is known."""
    scores = result.scores[0].items()
    return [name for name, one in scores if not one.is_known and one.lower is None]


def asked(request: Request) -> list[Attributes]:
    """Return what the model was given, in the conventions' shape of messages."""
    if request.conversation is None:
        return [_message("user", request.text)]
    return [
        _message(str(one.get("role")), one.get("content")) for one in request.conversation.messages
    ]


def answered(result: Result) -> list[Attributes]:
    """Return all candidates' texts in that shape, the best first."""
    return [
        {**_message("assistant", one.text), "finish_reason": one.finish_reason}
        for one in result.candidates
    ]


def _message(role: str, content: object) -> Attributes:
    return {"role": role, "parts": [{"type": "text", "content": content}]}
