"""What examples set for a whole program is set for theirs alone."""

import logging
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.util._once import Once

from uq_llm_integrations.telemetry import instruments

LOGGER = logging.getLogger("uq_llm_integrations.telemetry")


@pytest.fixture(autouse=True)
def own_providers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let an example set the provider of spans, which a process can do but once."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    instruments.tracer.cache_clear()
    yield
    instruments.tracer.cache_clear()


@pytest.fixture(autouse=True)
def own_logger() -> Iterator[None]:
    """Take back the handlers and the level that an example gives to the logger of calls."""
    handlers, level = [*LOGGER.handlers], LOGGER.level
    yield
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)
