"""Scores as LangSmith's feedback and on OpenTelemetry's spans."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.conftest import eventually
from tests.langchain.scripted_chat import scripted
from uq_llm_integrations import ScriptedBackend, VLLMUncertaintyLLM
from uq_llm_integrations.langchain import (
    LangSmithFeedbackHandler,
    OpenTelemetryHandler,
    UncertaintyCallbackHandler,
)


class Client:
    def __init__(self):
        self.feedback = []

    def create_feedback(self, run_id, key, *, score):
        self.feedback.append((run_id, key, score))


def test_each_score_is_feedback_on_the_run_of_the_call():
    client, seen = Client(), UncertaintyCallbackHandler()
    handlers = [LangSmithFeedbackHandler(client), seen]
    scripted(methods=("perplexity", "maxprob")).invoke("?", config={"callbacks": handlers})
    assert {key for _, key, _ in client.feedback} == {"uq_perplexity", "uq_maxprob"}
    assert {run_id for run_id, _, _ in client.feedback} == {seen.calls[0].run_id}
    assert client.feedback[0][2] == pytest.approx(1 / 0.9)


def test_a_score_that_is_not_known_is_not_sent():
    client = Client()
    scripted("").invoke("?", config={"callbacks": [LangSmithFeedbackHandler(client)]})
    assert client.feedback == []


@pytest.fixture
def spans():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test"), exporter


def test_the_current_span_has_the_scores(spans):
    tracer, exporter = spans
    with tracer.start_as_current_span("ask"):
        scripted(methods=("perplexity",)).invoke(
            "?", config={"callbacks": [OpenTelemetryHandler()]}
        )
    (span,) = exporter.get_finished_spans()
    assert span.attributes == {
        "uq.perplexity": pytest.approx(1 / 0.9),
        "uq.decision": "accepted",
        "uq.uncertain": False,
    }


async def test_the_current_span_of_async_callers_has_the_scores(spans):
    tracer, exporter = spans
    with tracer.start_as_current_span("ask"):
        async for _ in scripted().astream("?", config={"callbacks": [OpenTelemetryHandler()]}):
            pass
    (span,) = exporter.get_finished_spans()
    assert span.attributes["uq.perplexity"] == pytest.approx(1 / 0.9)


def test_completion_models_are_followed_as_well(spans):
    tracer, exporter = spans
    llm = VLLMUncertaintyLLM(backend=ScriptedBackend(["Paris."]))
    with tracer.start_as_current_span("ask"):
        llm.invoke("?", config={"callbacks": [OpenTelemetryHandler()]})
    assert "uq.entropy" in exporter.get_finished_spans()[0].attributes


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", [VLLMUncertaintyLLM, scripted])
async def test_a_stream_that_is_closed_early_reports_what_was_drawn(kind, is_async):
    client, seen = Client(), UncertaintyCallbackHandler()
    handlers = {"callbacks": [seen, LangSmithFeedbackHandler(client)]}
    methods = ("perplexity", "mc_entropy")
    if kind is scripted:
        llm = scripted("Paris.", methods=methods)
    else:
        llm = VLLMUncertaintyLLM(backend=ScriptedBackend(["Paris."]), methods=methods)
    if is_async:
        stream = llm.astream("?", config=handlers)
        await anext(stream), await anext(stream)
        await stream.aclose()
    else:
        stream = llm.stream("?", config=handlers)
        next(stream), next(stream)
        stream.close()
    await eventually(lambda: bool(seen.calls))
    (call,) = seen.calls
    assert call.text == "Pa"
    assert call.uncertainty["usage"]["generated_tokens"] == 2
    assert call.uncertainty["scores"] == {"perplexity": pytest.approx(1 / 0.9), "mc_entropy": None}
    assert "closed" in call.uncertainty["reasons"]["mc_entropy"]
    assert client.feedback == [(call.run_id, "uq_perplexity", pytest.approx(1 / 0.9))]


def test_a_stream_that_is_read_to_its_end_is_reported_once():
    seen = UncertaintyCallbackHandler()
    assert "".join(
        part.text for part in scripted("Paris.").stream("?", config={"callbacks": [seen]})
    )
    assert [call.text for call in seen.calls] == ["Paris."]
