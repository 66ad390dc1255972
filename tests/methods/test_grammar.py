"""Under a grammar every method reads the distribution among the allowed tokens, or says why not."""

from dataclasses import replace

import numpy as np
import pytest

from tests.methods.helpers import Lookup, add_scores, request
from uq_llm_integrations import (
    METHODS,
    EngineError,
    MethodOptions,
    Request,
    ScriptedBackend,
    TokenTrace,
)
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics
from uq_llm_integrations.methods.bounds import bounded
from uq_llm_integrations.methods.registry import missing_requirements
from uq_llm_integrations.methods.scoring import score_trace

NEEDS_TOP = {
    "BoostedProbSequence", "BoostedProbClaim", "ClaimConditionedProbability",
    "TokenClaimConditionedProbability", "ClaimConditionedProbabilityClaim",
}  # fmt: skip  # a list of names
WITHOUT_PROMPT = {
    "MeanPointwiseMutualInformation",
    "PointwiseMutualInformation",
    "PointwiseMutualInformationClaim",
}


class Grammatical(ScriptedBackend):
    """Allows the scripted byte and three others, and has no pass that knows the grammar."""

    top = 0

    async def generate(self, request, monitor=None):
        found = await super().generate(request, monitor)
        return [replace(one, trace=allowed(one.token_ids, self.top)) for one in found]

    async def score_all(self, prompt_ids, continuations, top_logprobs=0):
        texts = [bytes(ids).decode(errors="replace") for ids in continuations]
        if any(text in "Paris Rome" for text in texts):
            raise EngineError("the answer was scored without its grammar")
        return await super().score_all(prompt_ids, continuations, top_logprobs)


def allowed(token_ids, k: int) -> TokenTrace:
    """A trace of tokens of 0.7 each, where three more share the rest of what a grammar allows."""
    logprobs = np.full((len(token_ids), 256), -np.inf)
    for row, token in zip(logprobs, token_ids, strict=True):
        row[[(token + i) % 256 for i in range(4)]] = np.log([0.7, 0.1, 0.1, 0.1])
    ids = np.argsort(-logprobs, 1, kind="stable")
    exact = exact_statistics(dense_rows(logprobs))
    own = np.full(len(token_ids), np.log(0.7))
    trace = TokenTrace(256, own, np.ones(len(own), np.int64), grammar=True, **exact)
    if not k:
        return trace
    return replace(
        trace, top_ids=ids[:, :k], top_logprobs=np.take_along_axis(logprobs, ids[:, :k], 1)
    )


async def scores(top: int) -> dict:
    backend, options = Grammatical(["Paris", "Paris", "Rome"]), judged()
    backend.top = top
    served = missing_requirements(None, backend, options)
    names = [name for name, lacks in served.items() if lacks is None]
    candidates = await backend.generate(request(3))
    return (await add_scores(candidates, names, backend, request(3), options)).scores[0]


def judged() -> MethodOptions:
    return MethodOptions(entailment=Lookup(), similarity=Lookup())


async def test_no_method_reads_another_distribution_whatever_is_requested():
    known = [await scores(top) for top in (0, 2, 4, 20, 256)]
    for name in known[0]:
        given = [numbers(one[name]) for one in known if one[name].is_known]
        for one in given[1:]:
            assert one == pytest.approx(given[0]), name


async def test_what_cannot_be_had_under_the_grammar_says_so():
    known = await scores(0)
    for name in NEEDS_TOP | WITHOUT_PROMPT:
        assert not known[name].is_known
        assert "grammar" in known[name].reason
    assert all("request top_logprobs=" in known[name].reason for name in NEEDS_TOP)


async def test_enough_top_log_probabilities_are_as_many_as_the_grammar_allows():
    known = await scores(4)
    assert known["BoostedProbSequence"].value == pytest.approx(-0.7)
    assert all(known[name].is_known for name in NEEDS_TOP)


async def test_forbidden_tokens_are_no_alternatives():
    class Counting(Lookup):
        async def entailments(self, pairs, question, backend):
            assert all(text for pair in pairs for text in pair)
            return await super().entailments(pairs, question, backend)

    backend = Grammatical(["abc"])
    backend.top = 20
    candidates = await backend.generate(request())
    options = MethodOptions(entailment=Counting())
    result = await add_scores(candidates, ["token_ccp"], backend, request(), options)
    assert result.score("token_ccp").tokens == pytest.approx([-np.log(0.7)] * 3)


@pytest.mark.parametrize("name", ["RenyiNeg", "FisherRao"])
def test_the_uniform_distribution_is_over_the_allowed_tokens(name):
    """So that a grammar of V tokens has the score of a vocabulary of V."""
    logprobs = np.log(np.array([[0.7, 0.1, 0.1, 0.1]] * 2))
    exact = exact_statistics(dense_rows(logprobs))
    small = TokenTrace(4, logprobs[:, 0], np.ones(2, np.int64), **exact)
    value = score_trace(allowed([1, 2], 0), METHODS[name]).value
    assert value == pytest.approx(score_trace(small, METHODS[name]).value)


@pytest.mark.parametrize("name", ["RenyiNeg", "FisherRao", "MeanTokenEntropy"])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_the_top_k_bound_the_score_under_a_grammar(name, k):
    whole = allowed([1, 2, 3], k)
    exact = score_trace(whole, METHODS[name]).value
    unseen = {field: None for field in exact_statistics(np.zeros((0, 6)))}
    score = score_trace(bounded(replace(whole, why_inexact="it", **unseen)), METHODS[name])
    low, high = (score.value, score.value) if score.is_known else (score.lower, score.upper)
    assert low - 1e-9 <= exact <= high + 1e-9


async def test_samples_under_a_grammar_are_not_compared_with_an_answer_without_one():
    backend = Grammatical(["Paris", "Rome"])
    given = await ScriptedBackend(["Paris"]).generate(request())
    result = await add_scores(given, ["mc_entropy"], backend, request(), judged())
    assert "two distributions" in result.score("mc_entropy").reason


def numbers(score) -> list[float]:
    if score.claims is not None:
        return [claim.value for claim in score.claims]
    return [score.value] if score.tokens is None else list(score.tokens)


@pytest.mark.engine
@pytest.mark.parametrize(
    "changed",
    [
        {"structured_outputs": {"choice": ["Rome", "Paris"]}},
        {"allowed_token_ids": [9079, 14158, 28]},
        {"bad_words": ["The", " The"]},
        {"logit_bias": {28: 5.0}},
    ],
    ids=lambda one: next(iter(one)),
)
def test_every_top_k_gives_the_same_scores_or_a_reason(changed, backend, capital_ids):
    """Also where a mask changes what is sampled: then all are of the model's own distribution."""
    names = [
        "perplexity", "entropy", "self_certainty", "renyi_neg", "fisher_rao", "boosted_prob",
        "token_ccp", "mean_pmi", "claim_entropy", "claim_boosted_prob", "claim_pmi",
    ]  # fmt: skip  # a list of names
    known = []
    for k in (0, 5, 20, -1):
        sampling = {"temperature": 0.0, "max_tokens": 3, **changed}
        prompt = Request(capital_ids, top_logprobs=k, sampling=sampling, text="?")
        candidates = backend.run(backend.generate(prompt))
        known.append(
            backend.run(add_scores(candidates, names, backend, prompt, judged())).scores[0]
        )
    for name in names:
        given = [numbers(one[name]) for one in known if one[name].is_known]
        assert given or "grammar" in known[0][name].reason
        for one in given[1:]:
            assert one == pytest.approx(given[0], rel=1e-4, abs=1e-4), name
