"""Evidence is gathered once, at the same time as other evidence, and its failures stay its own."""

import asyncio

import numpy as np
import pytest

from tests.conftest import Meeting
from tests.methods.helpers import Lookup, add_scores, request, scored, values
from uq_llm_integrations import (
    ConfigurationError,
    Context,
    EngineError,
    EvidenceError,
    MethodOptions,
    ScriptedBackend,
    evidence_method,
    register_method,
)
from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.methods.registry import affordable_methods, list_methods

SCRIPT = ["Paris it is.", "Rome I think", "Paris it is", "probably Oslo, confidence 0.4"]


class Stuck(ScriptedBackend):
    """Never answers, and counts who was cancelled while waiting."""

    waiting = cancelled = 0

    async def generate(self, request, monitor=None):
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def context(**options) -> Context:
    backend = ScriptedBackend(["Paris"])
    candidates = await backend.generate(request())
    return Context(MeteredBackend(backend), request(), candidates, MethodOptions(**options))


async def test_all_who_await_evidence_get_what_was_gathered_once():
    gathered = []

    async def evidence(context):
        gathered.append(context)
        await asyncio.sleep(0)
        return object()

    shared = await context()
    first, second = await together([shared.of(evidence), shared.of(evidence)])
    assert first is second
    assert len(gathered) == 1


async def test_an_awaiter_that_is_cancelled_takes_the_evidence_from_no_other():
    release = asyncio.Event()

    async def evidence(context):
        await release.wait()
        return "gathered"

    shared = await context()
    impatient = asyncio.ensure_future(shared.of(evidence))
    patient = asyncio.ensure_future(shared.of(evidence))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    release.set()
    assert await patient == "gathered"


async def test_samples_are_generated_once_for_all_methods_that_compare_them():
    backend, judge = ScriptedBackend(SCRIPT), Lookup()
    names = ["mc_entropy", "consistency", "mc_normalized_entropy", "p_true_sampling"]
    result = await scored(None, *names, backend=backend, samples=3, entailment=judge)
    assert all(result.score(name).is_known for name in names)
    assert len(backend.requests) == 2
    assert judge.calls == 1


async def test_independent_evidence_is_gathered_at_the_same_time():
    candidates = await ScriptedBackend(["Paris"]).generate(request())
    names = ["mc_entropy", "p_true_empirical", "verbalized_2s"]
    result = await add_scores(candidates, names, Meeting(["0.5"], calls=3))
    assert values(result, "verbalized_2s") == [0.5]


async def test_evidence_is_cancelled_with_its_caller():
    backend = Stuck(["Paris"])
    candidates = await ScriptedBackend(["Paris"]).generate(request())
    names = ["mc_entropy", "p_true_empirical"]
    task = asyncio.ensure_future(add_scores(candidates, names, backend))
    while backend.waiting < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.cancelled == 2


async def test_evidence_that_fails_is_a_reason_and_loses_no_other_score():
    class Broken(Lookup):
        async def entailments(self, pairs, question, backend):
            raise EngineError("the judge is gone")

    names = ["perplexity", "consistency", "mc_entropy"]
    result = await scored(SCRIPT, *names, n=2, entailment=Broken())
    (scores, _) = result.scores
    assert scores["consistency"].reason == "the judge is gone"
    assert scores["perplexity"].is_known and scores["mc_entropy"].is_known


async def test_a_method_that_breaks_is_a_reason_and_a_line_in_the_log(own_registry, caplog):
    @register_method
    @evidence_method("breaks", summary="Nothing.", reference="none")
    async def breaks(context):
        return 1 / 0

    result = await scored(SCRIPT, "breaks", "mc_entropy")
    assert result.score("breaks").reason == "breaks failed: ZeroDivisionError: division by zero"
    assert result.score("mc_entropy").is_known
    assert "breaks failed" in caplog.text


async def test_one_candidate_without_a_value_spoils_no_other(own_registry):
    @register_method
    @evidence_method("picky", summary="Nothing.", reference="none")
    async def picky(context):
        return [0.5, EvidenceError("nothing to see"), np.nan]

    result = await scored(SCRIPT, "picky", n=3)
    assert values(result, "picky") == [0.5, None, None]
    assert result.scores[1]["picky"].reason == "nothing to see"
    assert "not finite" in result.scores[2]["picky"].reason


async def test_a_method_must_give_each_candidate_a_value(own_registry):
    @register_method
    @evidence_method("stingy", summary="Nothing.", reference="none")
    async def stingy(context):
        return [0.5]

    result = await scored(SCRIPT, "stingy", n=2)
    assert values(result, "stingy") == [None, None]
    assert "stingy failed" in result.score("stingy").reason


async def test_too_few_samples_are_a_reason():
    result = await scored(["Paris", "", "", "Rome"], "mc_entropy", samples=3)
    assert result.score("mc_entropy").reason == "fewer than two samples have a text to compare"


async def test_a_failed_candidate_has_no_score_and_spoils_no_other():
    script = ["Paris", EngineError("broken"), "Roma!"]
    result = await scored(script, "mc_entropy", n=3)
    assert [value is None for value in values(result, "mc_entropy")] == [False, True, False]
    assert "no tokens" in result.scores[1]["mc_entropy"].reason


async def test_candidates_without_tokens_have_a_reason_for_every_method():
    result = await scored([""], "mc_entropy", "perplexity")
    assert "no tokens" in result.score("mc_entropy").reason
    assert "no tokens" in result.score("perplexity").reason


async def test_what_evidence_costs_is_counted():
    names = ["mc_entropy", "rauq", "mean_pmi"]
    usage = (await scored(["Paris"], *names, samples=3)).usage
    assert usage.generated_tokens == 3 * 5
    assert usage.scored_tokens == 4 + 6  # all but the first of the text, and prompt and text
    assert usage.seconds > 0


async def test_one_forward_pass_serves_all_methods_that_read_activations():
    names = ["rauq", "attention_score", "eigen_score"]
    usage = (await scored(["Paris", "Rome"], *names, n=2)).usage
    assert usage.forward_passes == 1


async def test_scores_are_labelled_as_they_were_requested():
    result = await scored(["Paris"], "p_true", "PTrue")
    assert list(result.scores[0]) == ["p_true", "PTrue"]
    assert result.score("p_true") == result.score("PTrue")


@pytest.mark.parametrize(
    "wrong", [{"samples": 1}, {"temperature": 0.0}, {"stated_confidence": "no group"}]
)
def test_what_can_never_work_is_refused_at_construction(wrong):
    with pytest.raises(ConfigurationError):
        MethodOptions(**wrong)


SERVED = affordable_methods(ScriptedBackend(SCRIPT).capabilities)


@pytest.mark.parametrize("n", [1, 3])
async def test_every_method_gives_values_in_its_range_or_says_why_not(n):
    options = {"entailment": Lookup(("Paris it is.", "Paris it is")), "similarity": Lookup()}
    result = await scored(SCRIPT, *SERVED, n=n, **options)
    ranges = {method.name: method.range for method in list_methods()}
    for scores in result.scores:
        for name, score in scores.items():
            assert score.is_known != bool(score.reason)
            assert "fail" not in (score.reason or "")
            low, high = ranges[name]
            parts = [score.value, *(score.tokens or ()), *(one.value for one in score.claims or ())]
            for value in (part for part in parts if part is not None):
                assert low - 1e-9 <= value <= high + 1e-9, name
