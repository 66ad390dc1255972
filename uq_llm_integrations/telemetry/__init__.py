"""Spans, metrics and log records of every call, with an id that servers get, too.

Spans and metrics follow OpenTelemetry's conventions for generative AI, and go to the providers that
the program has set; without `opentelemetry-api` there are none. What was asked and answered is in
neither, unless `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says so.

Example:
    >>> import logging
    >>> from uq_llm_integrations.telemetry import RequestIdFilter, request_id
    >>> handler = logging.StreamHandler()
    >>> handler.addFilter(RequestIdFilter())
    >>> with request_id("order-17"):
    ...     pass  # calls of models
"""

from uq_llm_integrations.telemetry.request_ids import (
    RequestIdFilter,
    current_request_id,
    request_id,
)

__all__ = ["RequestIdFilter", "current_request_id", "request_id"]
