"""OpenTelemetry's providers with exporters in memory; those of the process stay as they are."""

import pytest

pytest.importorskip("opentelemetry.sdk")
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from uq_llm_integrations.telemetry import instruments


@pytest.fixture
def spans(monkeypatch):
    """The spans of this test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    instruments.tracer.cache_clear()
    yield exporter.get_finished_spans
    instruments.tracer.cache_clear()


@pytest.fixture
def measured(monkeypatch):
    """What this test has measured: by a metric's name, its points by their attributes."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter", provider.get_meter)
    instruments._instruments.cache_clear()

    def read():
        found = reader.get_metrics_data()
        scopes = [scope for one in found.resource_metrics for scope in one.scope_metrics]
        return {
            metric.name: {
                frozenset(dict(point.attributes).items()): point
                for point in metric.data.data_points
            }
            for scope in scopes
            for metric in scope.metrics
        }

    yield read
    provider.shutdown()
    instruments._instruments.cache_clear()
