"""Servers and backends that end with the test that uses them."""

from collections.abc import Callable, Iterator

import pytest

from uq_llm_integrations import VLLMServerBackend
from uq_llm_integrations.testing import ScriptedServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests in this folder may reach this machine."""
    for item in items:
        if "backends/server" in item.path.as_posix():
            item.add_marker(pytest.mark.loopback)


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts scripted servers."""
    servers: list[ScriptedServer] = []

    def start(*arguments, **options) -> ScriptedServer:
        servers.append(ScriptedServer(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., VLLMServerBackend]]:
    """Makes backends of scripted servers, or of addresses."""
    backends: list[VLLMServerBackend] = []

    def make(*servers, **options) -> VLLMServerBackend:
        urls = [one if isinstance(one, str) else one.url for one in servers]
        backends.append(VLLMServerBackend(urls, **options))
        return backends[-1]

    yield make
    for backend in backends:
        backend.close()
