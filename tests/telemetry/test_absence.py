"""Without OpenTelemetry, or with one that is too old, calls go on as they are."""

import sys

import pytest

from uq_llm_integrations import ScriptedBackend, UncertaintyModel
from uq_llm_integrations.telemetry import headers, instruments, request_id

CACHED = (instruments.tracer, instruments._instruments, headers._propagator)


@pytest.fixture
def forgotten():
    for one in CACHED:
        one.cache_clear()
    yield
    for one in CACHED:
        one.cache_clear()


def use():
    model = UncertaintyModel(ScriptedBackend(["Paris"]))
    assert model.generate("?").text == "Paris"
    assert "".join(piece.part.content for piece in model.stream("?")) == "Paris"


def test_without_the_package_nothing_is_missing(forgotten, monkeypatch):
    for name in [one for one in sys.modules if one.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    use()
    with request_id("mine"):
        assert headers.request_headers() == {"X-Request-Id": "mine-1"}
    assert instruments.tracer() is None


def test_one_that_is_too_old_is_said_once(forgotten, monkeypatch, caplog):
    metrics = pytest.importorskip("opentelemetry.metrics")

    class OldMeter:
        def create_counter(self, name, unit, description):
            return self

        create_histogram = create_counter

    monkeypatch.setattr(metrics, "get_meter", lambda *given: OldMeter())
    use()
    assert len([one for one in caplog.records if "too old" in one.getMessage()]) == 1
