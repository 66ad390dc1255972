"""What is counted and measured, by OpenTelemetry's names where it has them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from uq_llm_integrations.version import __version__

SCOPE = "uq_llm_integrations"
"""The name of the tracer and of the meter."""

logger = logging.getLogger(__name__)

_SECONDS = tuple(0.01 * 2**power for power in range(14))
_TOKENS = tuple(float(4**power) for power in range(14))
_SCORES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 12, 20, 50, 100, 1000)


@dataclass(frozen=True)
class Metric:
    """One thing that is counted or measured."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    description: str
    unit: str = ""
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, unless the program's views say others."""


DURATION = Metric(
    "gen_ai.client.operation.duration", "histogram", "Duration of a call.", "s", _SECONDS
)
FIRST_CHUNK = Metric(
    "gen_ai.client.operation.time_to_first_chunk",
    "histogram",
    "Time from the begin of a streamed call to its first piece.",
    "s",
    _SECONDS,
)
TOKENS = Metric(
    "gen_ai.client.token.usage", "histogram", "Tokens of a call by type.", "{token}", _TOKENS
)
UNCERTAINTY = Metric(
    "uq_llm.uncertainty",
    "histogram",
    "A method's score of an answer; higher is more uncertain.",
    bounds=_SCORES,
)
UNKNOWN = Metric(
    "uq_llm.scores.unknown", "counter", "Scores that could not be computed.", "{score}"
)
ANSWERS = Metric("uq_llm.answers", "counter", "Answers by what was decided.", "{answer}")
SAVED = Metric(
    "uq_llm.tokens.saved",
    "counter",
    "The most tokens that samples which were ended early, or never begun, could have taken.",
    "{token}",
)
QUEUE = Metric(
    "uq_llm.queue.duration",
    "histogram",
    "Time that a request to a server waited in this process for its turn.",
    "s",
    _SECONDS,
)
DRIFT_ALARMS = Metric(
    "uq_llm.drift.alarms",
    "counter",
    "Alarms that answers no longer come from where a calibration's came from.",
    "{alarm}",
)
DRIFT_EVIDENCE = Metric(
    "uq_llm.drift.evidence", "gauge", "Evidence of that: 1 is none, 1 / alpha is an alarm."
)

METRICS = (
    *(DURATION, FIRST_CHUNK, TOKENS, UNCERTAINTY, UNKNOWN, ANSWERS),
    *(SAVED, QUEUE, DRIFT_ALARMS, DRIFT_EVIDENCE),
)


def record(metric: Metric, value: float, attributes: Mapping[str, Any] | None = None) -> None:
    """Add to a counter, or note a value; nothing happens where nobody measures."""
    instrument = _instruments().get(metric.name)
    if instrument is None:
        return
    note = {"counter": "add", "histogram": "record", "gauge": "set"}[metric.kind]
    getattr(instrument, note)(value, attributes=dict(attributes or {}))


@cache
def tracer() -> Any:
    """Return the tracer, None without OpenTelemetry."""
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer(SCOPE, __version__)


@cache
def _instruments() -> Mapping[str, Any]:
    """Return what measures, by name: made once, for whatever provider is set, then or later."""
    try:
        from opentelemetry.metrics import get_meter
    except ImportError:
        return {}
    meter = get_meter(SCOPE, __version__)
    try:
        return {one.name: _made(meter, one) for one in METRICS}
    except (AttributeError, TypeError):  # a call must not fail by it
        logger.warning("this opentelemetry-api is too old for metrics; the extra says which does")
        return {}


def _made(meter: Any, metric: Metric) -> Any:
    about: dict[str, Any] = {"unit": metric.unit, "description": metric.description}
    if metric.bounds:
        about["explicit_bucket_boundaries_advisory"] = metric.bounds
    return getattr(meter, f"create_{metric.kind}")(metric.name, **about)
