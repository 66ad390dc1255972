"""The id of a call: in the log, in the span, and in what servers get."""

import logging

import httpx
import pytest

from uq_llm_integrations import (
    InvalidRequestError,
    Request,
    ScriptedBackend,
    UncertaintyModel,
    VLLMServerBackend,
)
from uq_llm_integrations.telemetry import RequestIdFilter, current_request_id, request_id
from uq_llm_integrations.telemetry.headers import request_headers
from uq_llm_integrations.testing import Fault, ScriptedServer

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
LOGGER = "uq_llm_integrations.telemetry.observed_calls"
COMPLETIONS = "/v1/completions"


@pytest.fixture
def server():
    with ScriptedServer(["Paris"]) as one:
        yield one


@pytest.fixture
def backend(server):
    with VLLMServerBackend(server.url) as one:
        yield one


def sent(server, name="x-request-id"):
    """What the generations' headers had under a name."""
    pairs = zip(server.requests, server.headers, strict=True)
    own = [(body, headers) for (path, body), headers in pairs if path == COMPLETIONS]
    return [headers.get(name) for body, headers in own if body.get("prompt") != [0]]


@pytest.mark.loopback
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_server_gets_the_id_with_a_number_for_each_request(server, backend, is_stream):
    model = UncertaintyModel(backend, chat_template=True)
    with request_id("order-17"):
        for _ in range(2):
            list(model.stream("?")) if is_stream else model.generate("?")
    ids = sent(server)
    assert len(ids) == len(set(ids)) == 2
    assert all(one.startswith("order-17-") for one in ids)


@pytest.mark.loopback
def test_the_requests_of_samples_and_of_second_tries_differ(server, backend):
    backend.run(backend.encode("x"))
    server.faults = [Fault(status=503, headers={"Retry-After": "0"})]
    model = UncertaintyModel(backend, n=3, temperature=0, methods=["perplexity"])
    model.generate("?")
    ids = sent(server)
    assert len(ids) == len(set(ids)) == 4
    assert len({one.rpartition("-")[0] for one in ids}) == 1


@pytest.mark.loopback
def test_calls_at_once_keep_their_own_ids(server, backend):
    UncertaintyModel(backend).generate_all([f"{number}?" for number in range(20)])
    assert len({one.rpartition("-")[0] for one in sent(server)}) == 20


@pytest.mark.loopback
def test_a_backend_by_itself_sends_an_id_where_there_is_one(server, backend):
    backend.run(backend.generate(Request(tuple(b"?"))))
    with request_id("mine"):
        backend.run(backend.generate(Request(tuple(b"?"))))
    none, own = sent(server)
    assert none is None and own.startswith("mine-")


@pytest.mark.loopback
def test_a_server_gets_the_place_in_the_trace_and_no_baggage(server, backend, spans):
    from opentelemetry import baggage, context

    token = context.attach(baggage.set_baggage("user", "secret"))
    try:
        UncertaintyModel(backend).generate("?")
    finally:
        context.detach(token)
    (span,) = spans()
    ((_, trace_id, span_id, _),) = [one.split("-") for one in sent(server, "traceparent")]
    assert int(trace_id, 16) == span.context.trace_id and int(span_id, 16) == span.context.span_id
    assert sent(server, "baggage") == [None]


@pytest.mark.parametrize("text", ["", "a b", "a\r\nX-Evil: 1", "ü", "x" * 129, None, 3])
def test_what_cannot_be_a_header_is_no_id(text):
    with pytest.raises(InvalidRequestError, match="request id"), request_id(text):
        pass


def test_an_id_ends_with_its_block():
    with request_id("one"), request_id("two"):
        assert current_request_id() == "two"
    assert current_request_id() is None


def record_of(caplog, **options):
    caplog.set_level(logging.INFO, LOGGER)
    UncertaintyModel(ScriptedBackend(["Paris"]), methods="perplexity", **options).generate("Where?")
    (line,) = [one for one in caplog.records if one.name == LOGGER]
    return line


def test_a_call_is_one_log_record_with_fields(caplog):
    with request_id("order-17"):
        line = record_of(caplog)
    assert line.getMessage() == "text_completion of scripted ended"
    assert (line.request_id, line.operation, line.model) == (
        "order-17",
        "text_completion",
        "scripted",
    )
    assert (line.input_tokens, line.output_tokens, line.decision) == (6, 5, "accepted")
    assert line.scores == {"perplexity": pytest.approx(1 / 0.9)} and line.unknown_scores == []
    assert line.error_type is None and line.duration_seconds >= 0
    assert "Where" not in repr(vars(line)) and "Paris" not in repr(vars(line))


@pytest.mark.parametrize(("value", "is_captured"), [("event_only", True), ("span_only", False)])
def test_what_was_said_is_logged_only_where_it_is_asked_for(
    caplog, monkeypatch, value, is_captured
):
    monkeypatch.setenv(CAPTURE, value)
    said = repr(vars(record_of(caplog)))
    assert ("Where?" in said) is ("Paris" in said) is is_captured


def test_a_call_that_fails_is_logged_by_its_error(caplog):
    class Failing(ScriptedBackend):
        async def generate(self, request, monitor=None):
            raise KeyError("Where?")

    caplog.set_level(logging.INFO, LOGGER)
    with pytest.raises(KeyError):
        UncertaintyModel(Failing(["a"])).generate("Where?")
    (line,) = [one for one in caplog.records if one.name == LOGGER]
    assert line.error_type == "KeyError" and "Where?" not in repr(vars(line))


def test_the_filter_gives_every_record_the_id():
    record = logging.LogRecord("other", logging.INFO, "", 0, "", (), None)
    with request_id("order-17"):
        assert RequestIdFilter().filter(record)
    assert record.request_id == "order-17"


@pytest.mark.engine
@pytest.mark.parametrize("streams", [False, True])
def test_a_real_server_makes_its_own_id_of_it(exact_server, streams):
    body = {"model": "smollm2", "prompt": "a", "max_tokens": 1, "stream": streams}
    with request_id("order-17"):
        answer = httpx.post(
            f"{exact_server.url}/v1/completions", json=body, headers=request_headers(), timeout=60
        )
    assert '"id":"cmpl-order-17-1' in answer.text.replace('"id": ', '"id":')
