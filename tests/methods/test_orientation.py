"""Higher is more uncertain, for every name: each method on a sure and on an unsure model."""

from dataclasses import replace

import numpy as np
import pytest

from tests.methods.helpers import scored
from uq_llm_integrations import METHODS, ScriptedBackend
from uq_llm_integrations.errors import MethodUnavailableError
from uq_llm_integrations.methods.attention import attention_score, claim_attention_scores
from uq_llm_integrations.methods.registry import WITHDRAWN, find_method

OF_A_CALIBRATION = {"CalibratedScore", "ErrorProbability"}
"""What is made of other scores is higher where the calibration says so; see the calibration's."""

OF_THE_FIT = {
    "MahalanobisDistance", "RelativeMahalanobisDistance", "RDE", "PPLMD", "UHead", "UHeadClaim",
}  # fmt: skip  # a list of names
"""What is fitted says itself what is far away, or wrong; see tests/methods/fitted."""

OF_ATTENTION = {"AttentionScore", "AttentionScoreClaim"}
"""A script's attention does not depend on how sure it is; see below."""

SURE = ["Paris is big."] * 3
UNSURE = ["Paris is big.", "Rome was old?", "In Oslo, yes."]

IN_WORDS = {
    "PTrueEmpirical": ("True", "False"),
    "Verbalized1S": ("Paris. Confidence: 0.9", "Paris. Confidence: 0.2"),
    "Verbalized2S": ("0.9", "0.2"),
    "Linguistic1S": ("It is almost certain.", "It is unlikely."),
}
"""What the sure and the unsure model say where a method reads the words."""


class Showing(ScriptedBackend):
    """Shows the whole distribution of each token, itself first."""

    async def generate(self, request, monitor=None):
        sampling = {name: one for name, one in request.sampling.items() if name != "max_tokens"}
        found = await super().generate(replace(request, sampling=sampling), monitor)
        return [self._shown(one) for one in found]

    async def score_all(self, prompt_ids, continuations, top_logprobs=0):
        found = await super().score_all(prompt_ids, continuations, top_logprobs)
        return [self._shown(one) for one in found]

    def _shown(self, one):
        count, others = len(one.token_ids), one.trace.vocabulary_size - 1
        ids = np.array([[t, *(i for i in range(others + 1) if i != t)] for t in one.token_ids])
        rest = np.log1p(-np.exp(one.trace.logprob)) - np.log(others)
        top = np.column_stack([one.trace.logprob, np.tile(rest[:, None], others)])
        shape = (count, others + 1)
        trace = replace(one.trace, top_ids=ids.reshape(shape), top_logprobs=top.reshape(shape))
        return replace(one, trace=trace)


class Judge:
    """Finds all texts alike, or none."""

    name = "a test"

    def __init__(self, alike: float) -> None:
        self.alike = alike

    async def entailments(self, pairs, question, backend):
        return np.array([self._shares(*pair) for pair in pairs])

    async def similarities(self, pairs, question, backend):
        return np.array([self.alike for _ in pairs])

    def _shares(self, first, second):
        alike = max(self.alike, 0.6 * (first == second))
        return [alike, 0.3 * (1 - alike), 0.7 * (1 - alike)]


async def doubt(name: str, lines: list[str], probability: float, alike: float) -> float:
    """The first answer's score, the mean of those of its tokens or claims."""
    judge = Judge(alike)
    backend = Showing(lines, probability=probability)
    options = {"entailment": judge, "similarity": judge, "span": r"\w+"}
    result = await scored(None, name, n=3, backend=backend, **options)
    score = result.score(name)
    assert score.is_known, score.reason
    if score.claims is not None:
        return float(np.mean([claim.value for claim in score.claims]))
    return float(np.mean(score.value if score.tokens is None else score.tokens))


@pytest.mark.parametrize(
    "name", sorted(set(METHODS) - OF_THE_FIT - OF_ATTENTION - OF_A_CALIBRATION)
)
async def test_an_unsure_model_has_the_higher_value(name):
    words = [[line] * 3 for line in IN_WORDS.get(name, ())]
    sure_lines, unsure_lines = words or (SURE, UNSURE)
    sure = await doubt(name, sure_lines, 0.95, 0.95)
    unsure = await doubt(name, unsure_lines, 0.4, 0.05)
    assert sure < unsure


def test_tokens_that_attend_to_others_have_the_higher_value():
    sure, unsure = (np.full((3, 2, 4), share, np.float32) for share in (0.9, 0.1))
    assert attention_score(sure) < attention_score(unsure)
    assert claim_attention_scores(sure, [[0, 1]]) < claim_attention_scores(unsure, [[0, 1]])


@pytest.mark.parametrize("name", WITHDRAWN)
def test_what_ranks_backwards_is_not_offered(name):
    assert name not in METHODS
    with pytest.raises(MethodUnavailableError, match="ranks backwards"):
        find_method(name)
