"""What is measured, by OpenTelemetry's names where it has them."""

import asyncio

import pytest
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from tests.calibration.test_drift import fitted
from uq_llm_integrations import ScriptedBackend, SelfConsistency, UncertaintyModel
from uq_llm_integrations.backends.server.request_queue import RequestQueue
from uq_llm_integrations.calibration import DriftWatch
from uq_llm_integrations.telemetry.instruments import METRICS

COMMON = {
    "gen_ai.operation.name": "text_completion",
    "gen_ai.provider.name": "uq_llm_integrations",
    "gen_ai.request.model": "scripted",
}


def of(**more):
    return frozenset({**COMMON, **{k.replace("__", "."): v for k, v in more.items()}}.items())


def test_names_of_the_conventions_are_theirs():
    known = {value for value in vars(gen_ai_metrics).values() if isinstance(value, str)}
    names = {one.name for one in METRICS}
    assert {one for one in names if not one.startswith("uq_llm.")} <= known
    assert len(names) == len(METRICS)


def test_duration_tokens_scores_and_decisions(measured):
    options = {"methods": ["perplexity", "mc_entropy"], "uncertain_when": "perplexity > 1"}
    model = UncertaintyModel(ScriptedBackend(["Paris"]), on_high_uncertainty="abstain", **options)
    model.generate("Capital?")
    model.generate("Capital?", on_high_uncertainty="annotate", uncertain_when="perplexity > 9")
    found = measured()
    assert found["gen_ai.client.operation.duration"][of()].count == 2
    tokens = found["gen_ai.client.token.usage"]
    assert tokens[of(gen_ai__token__type="input")].sum >= 2 * len("Capital?")
    assert tokens[of(gen_ai__token__type="output")].sum >= 2 * len("Paris")
    scores = found["uq_llm.uncertainty"][of(uq_llm__method="perplexity")]
    assert scores.count == 2 and scores.sum == pytest.approx(2 / 0.9)
    answers = found["uq_llm.answers"]
    abstained = of(uq_llm__decision="abstained", uq_llm__uncertain=True)
    accepted = of(uq_llm__decision="accepted", uq_llm__uncertain=False)
    assert answers[abstained].value == answers[accepted].value == 1


def test_a_score_that_is_not_known_is_counted_and_no_number(measured):
    UncertaintyModel(ScriptedBackend([""]), methods="perplexity").generate("?")
    found = measured()
    assert found["uq_llm.scores.unknown"][of(uq_llm__method="perplexity")].value == 1
    assert "uq_llm.uncertainty" not in found


def test_an_error_is_named(measured):
    class Failing(ScriptedBackend):
        async def generate(self, request, monitor=None):
            raise KeyError("x")

    with pytest.raises(KeyError):
        UncertaintyModel(Failing(["a"])).generate("?")
    assert measured()["gen_ai.client.operation.duration"][of(error__type="KeyError")].count == 1


def test_tokens_that_an_early_stop_has_saved(measured):
    model = UncertaintyModel(
        ScriptedBackend(["Paris"]),
        strategy=SelfConsistency(8),
        temperature=1,
        max_tokens=10,
    )
    usage = model.generate("?").usage
    assert measured()["uq_llm.tokens.saved"][of()].value == usage.saved_tokens > 0


def test_a_stream_has_the_time_to_its_first_piece(measured):
    list(UncertaintyModel(ScriptedBackend(["Paris"])).stream("?"))
    (point,) = measured()["gen_ai.client.operation.time_to_first_chunk"].values()
    assert point.count == 1


async def test_the_time_in_the_queue(measured):
    queue, ends = RequestQueue(1), asyncio.get_running_loop().time() + 60
    await queue.take(ends)
    waiting = asyncio.ensure_future(queue.take(ends))
    await asyncio.sleep(0)
    queue.give_back()
    await waiting
    (point,) = measured()["uq_llm.queue.duration"].values()
    assert point.count == 2


def test_drift_has_its_evidence_and_its_alarm(measured, caplog):
    watch = DriftWatch(fitted(), alpha=0.1)
    while watch.state.alarmed_at is None:
        watch.add(1e6)
    found = measured()
    assert found["uq_llm.drift.alarms"][frozenset()].value == 1
    assert found["uq_llm.drift.evidence"][frozenset()].value == pytest.approx(watch.state.evidence)
    (line,) = [one for one in caplog.records if hasattr(one, "drift_evidence")]
    assert line.drift_answers == watch.state.answers
