"""Methods that need more than a trace, on a backend that answers from a script."""

from dataclasses import replace

import numpy as np
import pytest

from uq_llm_integrations.backends.scripted import ScriptedBackend, ScriptedLine
from uq_llm_integrations.errors import ConfigurationError, EngineError, MethodUnavailableError
from uq_llm_integrations.methods.availability import check
from uq_llm_integrations.methods.context import PROVIDERS, Gathering
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import METHODS
from uq_llm_integrations.records import Request
from uq_llm_integrations.strategies.abstain import Abstain
from uq_llm_integrations.strategies.best_of_n import BestOfN, Single
from uq_llm_integrations.strategies.drive import drive
from uq_llm_integrations.strategies.quantities import score

SCRIPT = [
    "Paris it is.",
    ScriptedLine("Rome I think", 0.8),
    "Paris it is",
    "probably Oslo, confidence 0.4",
]

BACKEND = ScriptedBackend(SCRIPT)
SERVED = [name for name, lacks in check(None, BACKEND).items() if lacks is None]


CANDIDATE = drive(Single(), Request((63,)), ScriptedBackend(["Paris"])).candidate


class Lookup:
    """Knows what is entailed by what, and how alike texts are, from a table."""

    name = "a table"

    def __init__(self, *same: tuple[str, str]) -> None:
        self.same = set(same)

    def entailments(self, pairs, question):
        yield from ()
        return np.array([[1, 0, 0] if self._are_same(*p) else [0.1, 0.2, 0.7] for p in pairs])

    def similarities(self, pairs, question):
        yield from ()
        return np.array([float(self._are_same(*pair)) for pair in pairs])

    def _are_same(self, first: str, second: str) -> bool:
        return first == second or bool({(first, second), (second, first)} & self.same)


def request(n: int = 1, **method_options) -> Request:
    sampling = {"max_tokens": 64, "temperature": 1.0}
    return Request(
        tuple(b"?"), n, sampling=sampling, method_options=MethodOptions(**method_options)
    )


def values(result, name: str) -> list[float | None]:
    return [scores[name].value for scores in result.scores]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", SERVED)
def test_every_method_gives_a_number_or_says_why_not(name, n):
    result = drive(Single(), request(n), ScriptedBackend(SCRIPT), [name])
    for scores in result.scores:
        given = scores[name]
        assert given.is_known != bool(given.reason)


def test_one_candidate_is_compared_with_samples_drawn_for_it():
    backend = ScriptedBackend(["Paris"])
    drive(Single(), request(samples=4, temperature=0.7), backend, ["lexical_similarity"])
    answer, samples = backend.requests
    assert (answer.n, samples.n, samples.sampling["temperature"]) == (1, 4, 0.7)


def test_several_candidates_are_compared_among_themselves():
    backend = ScriptedBackend(["Paris", "Rome"])
    result = drive(Single(), request(2), backend, ["lexical_similarity"])
    assert len(backend.requests) == 1
    assert values(result, "lexical_similarity") == [0.0, 0.0]


def test_meanings_are_counted_by_what_follows_from_what():
    script = ["Paris", "It is Paris", "Rome", "Paris"]
    table = Lookup(("Paris", "It is Paris"))
    names = ["num_sem_sets", "consistency", "semantic_entropy_empirical"]
    result = drive(Single(), request(4, entailment=table), ScriptedBackend(script), names)
    assert values(result, "num_sem_sets") == [2.0] * 4
    assert values(result, "consistency") == [0.25] * 4
    expected = -(3 * np.log(3 / 4) + np.log(1 / 4)) / 4
    assert values(result, "semantic_entropy_empirical") == pytest.approx([expected] * 4)
    assert result.scores[0]["num_sem_sets"].source == "a table"


def test_each_candidate_has_its_own_agreement_with_the_samples():
    script = [ScriptedLine("Paris", 0.8), ScriptedLine("Paris", 0.8), ScriptedLine("Rome", 0.8)]
    result = drive(
        Single(), request(3, similarity=Lookup()), ScriptedBackend(script), ["cocoa_msp"]
    )
    paris, rome = -5 * np.log(0.8) / 3, -4 * np.log(0.8) * 2 / 3
    assert values(result, "cocoa_msp") == pytest.approx([paris, paris, rome])


def test_without_the_prompt_the_model_is_as_sure_so_it_takes_nothing():
    """But for the first token, which the estimator takes as it is."""
    backend = ScriptedBackend([ScriptedLine("abcd", 0.9)])
    result = drive(Single(), request(), backend, ["mean_pmi", "pmi"])
    assert values(result, "mean_pmi") == pytest.approx([-np.log(0.9) / 4])
    assert result.scores[0]["pmi"].tokens == pytest.approx([-np.log(0.9), 0, 0, 0])


def test_stated_confidence_and_hedges_are_read():
    script = ["Oslo. Confidence: 0.4", "Probably Oslo", "Oslo"]
    result = drive(Single(), request(3), ScriptedBackend(script), ["verbalized_1s", "linguistic"])
    assert values(result, "verbalized_1s") == [pytest.approx(0.6), None, None]
    assert values(result, "linguistic") == [None, pytest.approx(0.3), None]
    assert "says nothing" in result.scores[2]["linguistic"].reason


def test_evidence_that_fails_is_a_reason_and_loses_no_other_score():
    class Broken(Lookup):
        def entailments(self, pairs, question):
            yield from ()
            raise EngineError("the judge is gone")

    names = ["perplexity", "semantic_entropy", "lexical_similarity"]
    result = drive(Single(), request(2, entailment=Broken()), ScriptedBackend(SCRIPT), names)
    (scores, _) = result.scores
    assert scores["semantic_entropy"].reason == "the judge is gone"
    assert scores["perplexity"].is_known and scores["lexical_similarity"].is_known


def test_a_reply_that_failed_counts_neither_way():
    gathering = Gathering(Request((63,), text="?"), [CANDIDATE], MethodOptions())
    asking = PROVIDERS["p_true_empirical"](gathering)
    (part,) = next(asking).parts
    part.close()
    failed = replace(CANDIDATE, text="", error=EngineError("broken"))
    with pytest.raises(StopIteration) as stop:
        asking.send([[replace(CANDIDATE, text="True"), failed, failed]])
    assert stop.value.value == [1.0]


def test_too_few_samples_are_a_reason():
    backend = ScriptedBackend(["Paris", "", "", "Rome"])
    result = drive(Single(), request(samples=3), backend, ["semantic_entropy"])
    reason = result.scores[0]["semantic_entropy"].reason
    assert reason == "fewer than two samples have a text to compare"


def test_a_failed_candidate_has_no_score_and_spoils_no_other():
    script = ["Paris", EngineError("broken"), "Rome"]
    result = drive(Single(), request(3), ScriptedBackend(script), ["lexical_similarity"])
    assert values(result, "lexical_similarity") == [0.0, None, 0.0]
    assert "no tokens" in result.scores[1]["lexical_similarity"].reason


def test_what_evidence_costs_is_counted():
    alone = drive(Single(), request(), ScriptedBackend(["Paris"]), ["perplexity"]).usage
    names = ["lexical_similarity", "rauq", "mean_pmi"]
    usage = drive(Single(), request(samples=3), ScriptedBackend(["Paris"]), names).usage
    assert usage.generated_tokens == alone.generated_tokens + 3 * 5
    assert usage.scored_tokens == 4 + 6  # all but the first of the text, and prompt and text


def test_strategies_and_conditions_use_such_scores_like_any_other():
    chosen = BestOfN(3, "attention_score")
    decided = Abstain(chosen, score("attention_score") > 0, "abstain")
    result = drive(decided, request(), ScriptedBackend(["long answer", "no", "perhaps"]))
    assert result.candidate.text == "no"
    assert result.decision.action == "abstained"


def test_methods_that_cannot_be_had_are_refused_before_anything_is_asked():
    backend = ScriptedBackend(SCRIPT)
    with pytest.raises(MethodUnavailableError, match="fit_density"):
        drive(Single(), request(), backend, ["perplexity", "mahalanobis"])
    assert backend.requests == []


@pytest.mark.parametrize(
    "wrong", [{"samples": 1}, {"temperature": 0.0}, {"confidence": "no group"}]
)
def test_what_can_never_work_is_refused_at_construction(wrong):
    with pytest.raises(ConfigurationError):
        MethodOptions(**wrong)


def test_the_catalogue_is_told_with_what_it_costs():
    assert METHODS["SemanticEntropy"].cost == "samples, entailment of each pair of samples"
    assert METHODS["Perplexity"].cost == "nothing"
