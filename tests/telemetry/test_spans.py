"""One span a call, by OpenTelemetry's conventions for generative AI and with our scores."""

import json

import pytest
from opentelemetry import trace
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from tests.conftest import eventually
from uq_llm_integrations import (
    ChatVLLMUncertainty,
    EngineTimeoutError,
    Grounding,
    HighUncertaintyError,
    ScriptedBackend,
    UncertaintyModel,
)
from uq_llm_integrations.telemetry import request_id

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
USER = [{"role": "user", "content": "Capital of France?"}]


def model(**options):
    return UncertaintyModel(ScriptedBackend(["Paris"]), **options)


def test_a_call_is_a_span_with_its_usage_scores_and_decision(spans):
    asked = model(methods="perplexity", temperature=0.5, max_tokens=9, stop=["!"])
    with request_id("order-17"):
        asked.generate("Capital of France?")
    (span,) = spans()
    assert (span.name, span.kind) == ("text_completion scripted", SpanKind.CLIENT)
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "uq_llm_integrations",
        "gen_ai.request.model": "scripted",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ("!",),
        "gen_ai.usage.input_tokens": len("Capital of France?"),
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.response.finish_reasons": ("stop",),
        "uq_llm.request.id": "order-17",
        "uq_llm.decision": "accepted",
        "uq_llm.uncertain": False,
        "uq_llm.sampling_end": "complete",
        "uq_llm.usage.scored_tokens": 0,
        "uq_llm.usage.saved_tokens": 0,
        "uq_llm.score.perplexity": pytest.approx(1 / 0.9),
    }


def test_all_names_that_are_not_ours_are_of_the_conventions(spans, monkeypatch):
    monkeypatch.setenv(CAPTURE, "true")
    options = {"n": 2, "seed": 3, "top_p": 0.9, "top_k": 5, "temperature": 1, "max_tokens": 9}
    model(**options, stop=["!"], presence_penalty=0.1, frequency_penalty=0.1).generate("?")
    list(model().stream(USER))
    known = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    used = {name for span in spans() for name in span.attributes}
    assert {name for name in used if not name.startswith("uq_llm.")} <= known
    assert len(used) > 20


WAYS = {
    "generate": (lambda m: m.generate("?"), "text_completion"),
    "chat": (lambda m: m.chat(USER), "chat"),
    "stream": (lambda m: list(m.stream(USER)), "chat"),
    "score": (lambda m: m.score("?", "Paris"), "score"),
    "score_truncated": (lambda m: m.score_truncated("?", ["Paris"]), "score"),
}


def grounded(asked):
    return asked.ground("Paris", ["It is."], "?")


@pytest.mark.parametrize(("use", "operation"), WAYS.values(), ids=WAYS)
def test_every_way_is_one_span_within_the_callers(spans, use, operation):
    with trace.get_tracer("caller").start_as_current_span("outside") as outside:
        use(model())
    *own, _ = spans()
    assert [one.attributes["gen_ai.operation.name"] for one in own] == [operation]
    assert own[0].parent.span_id == outside.get_span_context().span_id
    assert own[0].attributes["uq_llm.score.perplexity"] == pytest.approx(1 / 0.9)
    assert own[0].attributes.get("gen_ai.request.stream", False) is (use is WAYS["stream"][0])


def test_several_texts_behind_one_prompt_are_one_call_with_what_all_cost(spans):
    model().score_truncated("?", ["Paris", "Rome"])
    (span,) = spans()
    assert span.attributes["uq_llm.usage.scored_tokens"] == len("ParisRome")
    assert "uq_llm.score.perplexity" not in span.attributes


def test_a_grounding_is_one_call_with_its_support_cost_and_decision(spans):
    model().ground("Paris", ["Paris is a city."], "Capital of France?")
    (span,) = spans()
    assert span.name == "ground scripted"
    assert span.attributes["uq_llm.support"] == 0.0
    assert span.attributes["uq_llm.grounding_passes"] == 2
    assert span.attributes["uq_llm.usage.scored_tokens"] == 2 * len("Paris")
    assert span.attributes["uq_llm.uncertain"] is True


def test_an_answer_that_is_not_grounded_and_an_error_has_its_support(spans):
    with pytest.raises(HighUncertaintyError):
        model().ground("Paris", ["It rains."], "?", Grounding(on_not_grounded="raise"))
    (span,) = spans()
    assert span.attributes["error.type"] == "HighUncertaintyError"
    assert span.attributes["uq_llm.support"] == 0.0


def test_each_prompt_of_a_batch_is_a_call(spans):
    model().generate_all(["one", "two", "three"])
    assert len(spans()) == len({one.attributes["uq_llm.request.id"] for one in spans()}) == 3


@pytest.mark.parametrize("is_async", [False, True])
async def test_langchain_is_seen_too(spans, is_async):
    chat = ChatVLLMUncertainty(backend=ScriptedBackend(["Paris"]), n=1)
    await chat.ainvoke("?") if is_async else chat.invoke("?")
    assert [one.attributes["gen_ai.operation.name"] for one in spans()] == ["chat"]


def test_an_uncertain_answer_that_is_an_error_has_its_scores(spans):
    given = {"uncertain_when": "perplexity > 0", "on_high_uncertainty": "raise"}
    with pytest.raises(HighUncertaintyError):
        model(**given).generate("?")
    (span,) = spans()
    assert span.attributes["error.type"] == "HighUncertaintyError"
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["uq_llm.uncertain"] is True
    assert span.attributes["uq_llm.score.perplexity"] == pytest.approx(1 / 0.9)


def test_an_error_is_named_and_says_nothing_of_what_was_asked(spans):
    class Failing(ScriptedBackend):
        async def generate(self, request, monitor=None):
            raise EngineTimeoutError("no answer to: my secret question")

    with pytest.raises(EngineTimeoutError):
        UncertaintyModel(Failing(["a"])).generate("my secret question")
    (span,) = spans()
    assert span.attributes["error.type"] == "EngineTimeoutError"
    assert "secret" not in span.to_json()


async def test_a_stream_that_is_closed_early_has_what_was_drawn_and_is_no_error(spans):
    seen = []
    stream = model().astream(USER, on_closed=seen.append)
    await anext(stream), await anext(stream)
    await stream.aclose()
    await eventually(lambda: bool(spans()))
    (span,) = spans()
    assert span.attributes["gen_ai.usage.output_tokens"] == len(seen[0].candidate.token_ids) == 2
    assert "error.type" not in span.attributes and span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("value", "is_captured"),
    [(None, False), ("false", False), ("event_only", False)]
    + [(one, True) for one in ("true", "True", "SPAN_ONLY", "span_and_event")],
)
@pytest.mark.parametrize("use", [WAYS["generate"][0], WAYS["chat"][0], grounded])
def test_what_was_said_is_captured_only_where_it_is_asked_for(
    spans, monkeypatch, value, is_captured, use
):
    monkeypatch.delenv(CAPTURE, raising=False)
    if value is not None:
        monkeypatch.setenv(CAPTURE, value)
    use(model())
    (span,) = spans()
    assert ("Paris" in span.to_json()) is is_captured
    if is_captured:
        (asked,) = json.loads(span.attributes["gen_ai.input.messages"])
        (answer,) = json.loads(span.attributes["gen_ai.output.messages"])
        assert asked["role"] == "user" and asked["parts"][0]["content"].endswith("?")
        assert answer["parts"] == [{"type": "text", "content": "Paris"}]
