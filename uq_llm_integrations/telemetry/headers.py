"""What a request to a server says of the call that it belongs to."""

from __future__ import annotations

from functools import cache
from typing import Any

from uq_llm_integrations.telemetry.request_ids import HEADER, current


def request_headers() -> dict[str, str]:
    """Return the id of one more request of the current call, and its place in the trace.

    The trace is OpenTelemetry's `traceparent` and `tracestate`, where a span is recorded; its
    baggage, which may have anything in it, stays here.
    """
    headers: dict[str, str] = {}
    if (one := current()) is not None:
        headers[HEADER] = one.next()
    if (propagator := _propagator()) is not None:
        propagator.inject(headers)
    return headers


@cache
def _propagator() -> Any:
    try:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        return None
    return TraceContextTextMapPropagator()
