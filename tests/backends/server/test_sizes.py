"""A server cannot fill the memory of its client: bodies, errors and events have limits."""

import gzip
import json

import pytest

from uq_llm_integrations import EngineError, InvalidRequestError, Request
from uq_llm_integrations.backends.server import wire
from uq_llm_integrations.testing import Fault

PROMPT = tuple(b"The capital of France is")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(wire, "MOST_BYTES", 20_000)


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
def test_a_body_beyond_the_limit_is_not_read(serve, connect, small, headers):
    server = serve()
    body = json.dumps({"choices": ["x" * 10**6]}).encode()
    server.faults = [Fault(body=gzip.compress(body) if headers else body, headers=headers)]
    backend = connect(server)
    with pytest.raises(EngineError, match="more than 20000 bytes"):
        backend.run(backend.generate(Request(PROMPT)))
    assert backend.run(backend.generate(Request(PROMPT)))[0].text == "Paris"


def test_an_event_without_an_end_is_not_read(serve, connect, small):
    server = serve()
    server.faults = [Fault(body=b"data: " + b"x" * 10**6)]
    backend = connect(server)
    with pytest.raises(EngineError, match="an event of more than 20000 bytes"):
        list(backend.iterate(backend.stream(Request(PROMPT))))


def test_only_the_beginning_of_an_error_is_read(serve, connect):
    server = serve()
    server.faults = [Fault(status=400, body=b"no " * 10**6)]
    backend = connect(server)
    with pytest.raises(InvalidRequestError) as caught:
        backend.run(backend.generate(Request(PROMPT)))
    assert len(str(caught.value)) < 800
