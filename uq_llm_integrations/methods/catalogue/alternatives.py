"""Methods that look at the tokens that might have stood in the place of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from uq_llm_integrations.methods.base import evidence_method
from uq_llm_integrations.methods.boosted import token_ccp
from uq_llm_integrations.records import Candidate, Floats

CCP = "https://arxiv.org/abs/2403.04696"
BOOSTED = "https://aclanthology.org/2025.emnlp-main.166"


def _boosted(candidate: Candidate, gathered: Mapping[str, Any]) -> float:
    return -float(gathered["boosted_probabilities"].mean())


def _token_ccp(candidate: Candidate, gathered: Mapping[str, Any]) -> Floats:
    verdicts = gathered["greedy_tokens_alternatives_nli"]
    with np.errstate(divide="ignore"):
        return -np.log(token_ccp(gathered["greedy_tokens_alternatives"], verdicts))


ALTERNATIVES_METHODS = (
    evidence_method(
        "BoostedProbSequence", "boosted_prob", "boostedprob_score:BoostedProbSequence",
        "logprob", "boosted_probabilities", BOOSTED,
        "Negated mean probability, where tokens that dominate share theirs; -1 to 0.",
        own=_boosted,
    ),
    evidence_method(
        "ClaimConditionedProbability", "ccp",
        "claim_conditioned_probability:ClaimConditionedProbability",
        "logprob", "greedy_tokens_alternatives greedy_tokens_alternatives_nli", CCP,
        "Negated probability of what is meant, among alternatives that mean it or contradict it; "
        "-1 to 0.",
    ),
    evidence_method(
        "TokenClaimConditionedProbability", "token_ccp", "",
        "logprob", "greedy_tokens_alternatives greedy_tokens_alternatives_nli", CCP,
        "The negative logarithm of the same at each token; nats.",
        level="token", own=_token_ccp,
    ),
)  # fmt: skip  # a table, one method a block
