"""Methods that compare samples, on a backend that answers from a script."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.helpers import Lookup, scored, values
from uq_llm_integrations import EmbeddingSimilarity, ScriptedBackend, ScriptedLine
from uq_llm_integrations.methods.lexical import common_length, mean_rouge_l


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


@pytest.mark.parametrize(
    "text", ["Oslo", "東京", "Москва", "Αθήνα", "القاهرة", "दिल्ली", "🙂", "?!", "\n", "กรุงเทพ", "é"]
)
async def test_identical_answers_are_certain_in_every_script(text):
    """Even where the judge does not see that a text follows from itself."""
    names = ["lexical_similarity", "semantic_entropy", "semantic_entropy_empirical", "consistency"]
    result = await scored([text], *names, n=4, entailment=Blind())
    assert [result.score(name).value for name in names] == [-1.0, 0.0, 0.0, 0.0]


class Blind(Lookup):
    async def entailments(self, pairs, question, backend):
        return np.array([[0.1, 0.8, 0.1]] * len(pairs))


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        ("The capital is Oslo", "the capital: OSLO", 6 / 7),
        ("東京です", "京都です", 6 / 8),
        ("Город Москва", "город: москва!", 1.0),
        ("हिन्दी भाषा", "हिन्दी", 2 / 3),
        ("🙂🙂", "🙂🙁", 0.5),
        ("🙂", "🙁", 0.0),
        ("?", "!", 0.0),
        ("two towns", "two town", 1.0),
        ("caf\u00e9", "cafe\u0301", 1.0),
        ("👍🏽", "👍🏿", 0.5),
        ("نعم", "لا", 0.0),
    ],
)
async def test_words_are_compared_in_every_script(one, other, similarity):
    result = await scored([one, other], "lexical_similarity", n=2)
    assert values(result, "lexical_similarity") == pytest.approx([-similarity] * 2)


async def test_common_words_are_shared_in_scripts_without_spaces():
    names = ["deg_mat_jaccard", "eccentricity_jaccard", "eigval_laplacian_jaccard"]
    japanese = await scored(["東京です", "京都です"], *names, n=2)
    english = await scored(["to kyo de su", "kyo ut de su"], *names, n=2)
    for name in names:
        assert values(japanese, name) == pytest.approx(values(english, name))
    blank = await scored(["  "], "deg_mat_jaccard", n=3)
    assert values(blank, "deg_mat_jaccard") == [0.0] * 3


@given(st.lists(st.text(), min_size=2, max_size=4))
def test_lexical_similarity_is_a_similarity(texts):
    alike = mean_rouge_l(texts)
    assert 0 <= alike <= 1
    assert mean_rouge_l(texts[::-1]) == pytest.approx(alike)
    assert mean_rouge_l([texts[0]] * 3) == 1


@given(*[st.lists(st.sampled_from("abc"), max_size=9)] * 2)
def test_the_longest_common_subsequence_is_that_of_the_definition(first, second):
    def longest(one, other):
        if not one or not other:
            return 0
        if one[0] == other[0]:
            return 1 + longest(one[1:], other[1:])
        return max(longest(one[1:], other), longest(one, other[1:]))

    assert common_length(first, second) == longest(tuple(first), tuple(second))


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=2, max_size=6), st.floats(0.05, 1.0))
@settings(max_examples=50)
def test_semantic_entropy_is_never_negative_and_0_for_one_meaning(texts, probability):
    script = [ScriptedLine(text, probability) for text in texts]
    result = asyncio.run(scored(script, "semantic_entropy", n=len(texts), entailment=Lookup()))
    value = result.score("semantic_entropy").value
    assert value == 0.0 if len(set(texts)) == 1 else value > 0.0


async def test_semantic_entropy_is_that_of_the_samples_shares():
    script = [ScriptedLine("a", 0.6), ScriptedLine("a", 0.6), ScriptedLine("b", 0.3)]
    result = await scored(script, "semantic_entropy", n=3, entailment=Lookup())
    expected = -(2 * np.log(1.2 / 1.5) + np.log(0.3 / 1.5)) / 3
    assert values(result, "semantic_entropy") == pytest.approx([expected] * 3)


async def test_lm_polygraphs_semantic_entropy_takes_the_probabilities_as_they_are():
    script = [ScriptedLine("a", 0.6), ScriptedLine("a", 0.6), ScriptedLine("b", 0.3)]
    result = await scored(script, "semantic_entropy_polygraph", n=3, entailment=Lookup())
    expected = -(2 * np.log(1.2) + np.log(0.3)) / 3
    assert values(result, "semantic_entropy_polygraph") == pytest.approx([expected] * 3)


class Ending(ScriptedBackend):
    """Has a tokenizer in which the byte 1 ends a turn, and says nothing."""

    async def tokenizer(self):
        return SimpleNamespace(added_tokens_decoder={1: "<end>"})

    async def decode(self, token_ids):
        return await super().decode([token for token in token_ids if token != 1])


async def test_special_tokens_weigh_nothing_in_the_sar_family():
    """Whatever they cost, and whatever a judge thinks of two equal texts."""
    similarity = Half()
    plain = [ScriptedLine("ab", 0.9)]
    ended = [ScriptedLine("ab\x01", 0.9)]
    names = ["token_sar", "claim_token_sar"]
    (without, _), (with_end, _) = [
        [(one := await scored(None, *names, backend=Ending(script), similarity=similarity)), one]
        for script in (plain, ended)
    ]
    assert with_end.score("token_sar").value == pytest.approx(without.score("token_sar").value)
    claim = without.score("claim_token_sar").claims[0].value
    assert with_end.score("claim_token_sar").claims[0].value == pytest.approx(claim)


class Half(Lookup):
    async def similarities(self, pairs, question, backend):
        return np.full(len(pairs), 0.5)


async def test_equal_texts_are_alike_to_the_last_digit():
    similarity = EmbeddingSimilarity()
    names = ["cocoa_msp", "cocoa_ppl", "cocoa_mte"]
    result = await scored(["Oslo, in Norway"], *names, n=3, similarity=similarity)
    assert [result.score(name).value for name in names] == [0.0, 0.0, 0.0]


async def test_a_similarity_that_is_no_number_is_no_score():
    result = await scored(["\x00", "Oslo"], "cocoa_msp", n=2, similarity=EmbeddingSimilarity())
    assert values(result, "cocoa_msp") == [None, None]


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
