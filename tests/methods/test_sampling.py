"""Methods that compare samples, on a backend that answers from a script."""

import numpy as np
import pytest

from tests.methods.helpers import Lookup, scored, values
from uq_llm_integrations import ScriptedBackend, ScriptedLine


async def test_one_candidate_is_compared_with_samples_generated_for_it():
    backend = ScriptedBackend(["Paris"])
    await scored(None, "mc_entropy", backend=backend, samples=4, temperature=0.7)
    answer, samples = backend.requests
    assert (answer.n, samples.n, samples.sampling["temperature"]) == (1, 4, 0.7)


async def test_several_candidates_are_compared_among_themselves():
    backend = ScriptedBackend(["Paris", "Rome"])
    result = await scored(None, "lexical_similarity", n=2, backend=backend)
    assert len(backend.requests) == 1
    assert values(result, "lexical_similarity") == [0.0, 0.0]


async def test_meanings_are_counted_by_what_follows_from_what():
    script = ["Paris", "It is Paris", "Rome", "Paris"]
    table = Lookup(("Paris", "It is Paris"))
    names = ["num_sem_sets", "consistency", "semantic_entropy_empirical"]
    result = await scored(script, *names, n=4, entailment=table)
    assert values(result, "num_sem_sets") == [2.0] * 4
    assert values(result, "consistency") == [0.25] * 4
    expected = -(3 * np.log(3 / 4) + np.log(1 / 4)) / 4
    assert values(result, "semantic_entropy_empirical") == pytest.approx([expected] * 4)
    assert result.score("num_sem_sets").source == "a table"


async def test_each_candidate_has_its_own_agreement_with_the_samples():
    script = [ScriptedLine("Paris", 0.8), ScriptedLine("Paris", 0.8), ScriptedLine("Rome", 0.8)]
    result = await scored(script, "cocoa_msp", n=3, similarity=Lookup())
    paris, rome = -5 * np.log(0.8) / 3, -4 * np.log(0.8) * 2 / 3
    assert values(result, "cocoa_msp") == pytest.approx([paris, paris, rome])


async def test_each_pair_of_texts_is_judged_once():
    pairs_seen = []

    class Recording(Lookup):
        async def entailments(self, pairs, question, backend):
            pairs_seen.extend(pairs)
            return await super().entailments(pairs, question, backend)

    await scored(["Paris", "Paris", "Rome"], "consistency", n=3, entailment=Recording())
    assert len(pairs_seen) == len(set(pairs_seen)) == 4


async def test_the_served_model_judges_unless_another_judge_is_given():
    result = await scored(["Paris", "Rome"], "consistency", n=2)
    assert result.score("consistency").source == "the served model as judge"
