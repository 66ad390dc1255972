"""Scores for each claim of an answer."""

from dataclasses import replace

import numpy as np
import pytest

from tests.methods.helpers import NATS, Lookup
from tests.methods.helpers import scored as scored_result
from uq_llm_integrations import ScriptedBackend
from uq_llm_integrations.methods.options import sentences

ENTROPY = -0.9 * np.log(0.9) - 0.1 * np.log(0.1 / 255)


class Knowing(ScriptedBackend):
    """Knows the top log-probabilities of given tokens: the token's own 0.9, then x, y and z."""

    rest = (0.06, 0.02, 0.01, *[0.0005] * 16)

    async def score_all(self, prompt_ids, continuations, top_logprobs=0):
        scored = await super().score_all(prompt_ids, continuations, top_logprobs)
        return [self._with_top(one) if top_logprobs else one for one in scored]

    def _with_top(self, one):
        ids = [[token, *b"xyz", *range(16)] for token in one.token_ids]
        logprobs = np.log([[0.9, *self.rest]] * len(ids))
        trace = replace(one.trace, top_ids=np.array(ids), top_logprobs=logprobs)
        return replace(one, trace=trace)


async def scores(script, *names, backend=ScriptedBackend, **options):
    lines = [script] if isinstance(script, str) else script
    judges = {"entailment": Lookup(), "similarity": Lookup()}
    return (await scored_result(lines, *names, backend=backend, **judges | options)).scores[0]


def values(score) -> list[float]:
    return [claim.value for claim in score.claims]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is Oslo. Is it? Yes!", ["It is Oslo.", "Is it?", "Yes!"]),
        ("Pi is 3.14 or so", ["Pi is 3.14 or so"]),
        ('He said "No." Then he left...\nBye', ['He said "No."', "Then he left...", "Bye"]),
        ("巴黎。罗马！", ["巴黎。", "罗马！"]),
        (" \n ", []),
        ("", []),
        ("Wait... what?!...", ["Wait...", "what?!..."]),
        ("a" + "." * 50_000 + "b", ["a" + "." * 50_000 + "b"]),
        ("a" + "?!" * 25_000 + "b.", ["a" + "?!" * 25_000 + "b."]),
    ],
)
def test_sentences_end_with_stops_and_lines(text, expected):
    assert [text[start:end] for start, end in sentences(text)] == expected


async def test_each_sentence_is_a_claim_with_its_own_score():
    names = ["claim_maxprob", "claim_mean_nll", "claim_perplexity", "claim_entropy"]
    found = await scores("Oslo. A town.", *names)
    claims = found["claim_maxprob"].claims
    assert [claim.text for claim in claims] == ["Oslo.", "A town."]
    assert [claim.tokens for claim in claims] == [tuple(range(5)), tuple(range(6, 13))]
    assert values(found["claim_maxprob"]) == pytest.approx([5 * NATS, 7 * NATS])
    assert values(found["claim_mean_nll"]) == pytest.approx([NATS, NATS])
    assert values(found["claim_perplexity"]) == pytest.approx([1 / 0.9, 1 / 0.9])
    assert values(found["claim_entropy"]) == pytest.approx([ENTROPY, ENTROPY])
    assert found["claim_maxprob"].is_known


async def test_all_tokens_of_a_character_belong_to_its_claim():
    claims = (await scores("né. Én.", "claim_maxprob"))["claim_maxprob"].claims
    assert [claim.tokens for claim in claims] == [(0, 1, 2, 3), (5, 6, 7, 8)]


async def test_claims_are_what_the_caller_says_they_are():
    found = await scores(
        "Oslo, Rome", "claim_maxprob", claims=lambda text: [(0, 4), (6, 10), (0, 10)]
    )
    claims = found["claim_maxprob"].claims
    assert [claim.text for claim in claims] == ["Oslo", "Rome", "Oslo, Rome"]
    assert [claim.value for claim in claims] == pytest.approx([4 * NATS, 4 * NATS, 10 * NATS])


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (lambda text: [], "the answer holds no claim"),
        (lambda text: [(0, 99)], "a claim from 0 to 99 is no part of 4 characters"),
        (lambda text: 1 / 0, "cannot be found: division by zero"),
    ],
)
async def test_claims_that_are_none_are_a_reason_and_spoil_no_other_score(claims, reason):
    found = await scores("Oslo", "claim_maxprob", "perplexity", claims=claims)
    assert reason in found["claim_maxprob"].reason
    assert not found["claim_maxprob"].is_known
    assert found["perplexity"].is_known


async def test_what_the_trace_knows_of_each_claim_as_of_the_whole():
    found = await scores("Oslo. A town.", "claim_self_certainty", "self_certainty", "claim_pmi")
    whole = found["self_certainty"].value
    assert values(found["claim_self_certainty"]) == pytest.approx([whole, whole])
    assert values(found["claim_pmi"]) == pytest.approx([NATS, 0.0])  # the first token counts as is


async def test_attention_of_each_claims_tokens_to_themselves():
    """The scripted model attends evenly, so the token at index p attends 1 / (p + 1) to itself."""
    found = (await scores("No. Yes.", "claim_attention_score"))["claim_attention_score"]
    expected = [np.log([2, 3, 4]).sum(), np.log([6, 7, 8, 9]).sum()]
    assert values(found) == pytest.approx(expected)


async def test_samples_that_contradict_a_claim_count_against_it():
    script = ["Oslo. Oslo.", "Oslo.", "Oslo.", "Rome."]
    found = (await scores(script, "claim_frequency", samples=3))["claim_frequency"]
    assert values(found) == [1 - 2, 1 - 2]
    assert found.source == "a table"


async def test_parts_of_token_sar_add_up_to_it():
    found = await scores(
        "No.Yes", "claim_token_sar", "token_sar", claims=lambda text: [(0, 3), (3, 6)]
    )
    assert sum(values(found["claim_token_sar"])) == pytest.approx(found["token_sar"].value)


async def test_the_model_says_whether_each_claim_is_true():
    found = (await scores("Oslo. Rome.", "claim_p_true"))["claim_p_true"]
    assert values(found) == pytest.approx([4 * NATS, 4 * NATS])  # "True" is four bytes


async def test_ccp_weighs_alternatives_that_contradict():
    """x means the same as each letter; y, z and six more of the ten alternatives contradict it."""
    same = Lookup(*[(letter, "x") for letter in "abc"])
    found = await scores("abc", "ccp", "token_ccp", "claim_ccp", backend=Knowing, entailment=same)
    agree, against = 0.9 + 0.06, 0.02 + 0.01 + 6 * 0.0005
    ccp = agree / (agree + against)
    assert found["ccp"].value == pytest.approx(-(ccp**3))
    assert found["token_ccp"].tokens == pytest.approx([-np.log(ccp)] * 3)
    assert values(found["claim_ccp"]) == pytest.approx([-(ccp**3)])
    assert found["ccp"].source == "a table"


async def test_alternatives_that_cannot_be_had_are_a_reason():
    assert (await scores("abc", "ccp"))["ccp"].reason == (
        "10 top log-probabilities of each token cannot be had"
    )


async def test_tokens_that_dominate_share_their_probability():
    """The last steep fall is that from z, 0.01, so the token itself, x, y and z dominate."""
    found = await scores("a. b.", "boosted_prob", "claim_boosted_prob", backend=Knowing)
    mass = 0.9 + 0.06 + 0.02 + 0.01
    assert found["boosted_prob"].value == pytest.approx(-mass)
    assert values(found["claim_boosted_prob"]) == pytest.approx([-mass, -mass])
