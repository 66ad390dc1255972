"""What LlamaIndex keeps in globals, put back after each test."""

from collections.abc import Callable, Iterator

import pytest
from llama_index.core import Settings
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count words, since the default tokenizer would be downloaded, and keep the default model."""
    monkeypatch.setattr(Settings, "_tokenizer", str.split)
    monkeypatch.setattr(Settings, "_llm", None)


@pytest.fixture
def registered() -> Iterator[Callable[[BaseEventHandler], BaseEventHandler]]:
    """Register event handlers until the end of the test."""
    handlers = get_dispatcher().event_handlers
    before = list(handlers)

    def register(handler: BaseEventHandler) -> BaseEventHandler:
        handlers.append(handler)
        return handler

    yield register
    handlers[:] = before
