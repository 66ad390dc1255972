"""Methods that give each claim of an answer its own score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from uq_llm_integrations.errors import MethodUnavailableError
from uq_llm_integrations.methods import statistics
from uq_llm_integrations.methods.attention import claim_attention_scores
from uq_llm_integrations.methods.base import evidence_method
from uq_llm_integrations.records import Candidate, Floats

TUTORIAL = "https://arxiv.org/abs/2406.15627"
CCP = "https://arxiv.org/abs/2403.04696"
BOOSTED = "https://aclanthology.org/2025.emnlp-main.166"
FREQUENCY = "https://arxiv.org/abs/2402.10978"


def _means(values: Floats, gathered: Mapping[str, Any]) -> Floats:
    return np.array([values[list(claim.tokens)].mean() for claim in gathered["claims"]])


def _self_certainty(candidate: Candidate, gathered: Mapping[str, Any]) -> Floats:
    if not candidate.trace.is_exact:
        raise MethodUnavailableError(str(candidate.trace.why_inexact))
    return _means(statistics.self_certainty(candidate.trace), gathered)


def _boosted(candidate: Candidate, gathered: Mapping[str, Any]) -> Floats:
    return -_means(gathered["boosted_probabilities"], gathered)


def _attention_score(candidate: Candidate, gathered: Mapping[str, Any]) -> Floats:
    places = [claim.tokens for claim in gathered["claims"]]
    own = gathered["attention_self"][..., len(candidate.prompt_ids) :]
    return claim_attention_scores(own, places)


def _head(candidate: Candidate, gathered: Mapping[str, Any]) -> Floats:
    doubts: Floats = gathered["head_claim_doubts"]
    return doubts


def _is_no_stop_word(word: Any) -> bool:
    """Return False: in lm-polygraph's own pipeline words are ids, none of which is a stop word."""
    return False


CLAIM_METHODS = (
    evidence_method(
        "MaximumClaimProbability", "claim_maxprob", "claim.max_probability:MaximumClaimProbability",
        "logprob", "claims", TUTORIAL,
        "Negative log-probability of each claim's tokens; nats.", level="claim",
    ),
    evidence_method(
        "PerplexityClaim", "claim_perplexity", "claim.perplexity:PerplexityClaim",
        "logprob", "claims", TUTORIAL,
        "Mean negative log-probability of each claim's tokens; nats.", level="claim",
    ),
    evidence_method(
        "MaxTokenEntropyClaim", "claim_entropy", "claim.token_entropy:MaxTokenEntropyClaim",
        "logprob", "claims entropy", TUTORIAL,
        "Highest entropy at each claim's tokens; nats.", level="claim",
    ),
    evidence_method(
        "SelfCertaintyClaim", "claim_self_certainty", "claim.self_certainty:SelfCertaintyClaim",
        "logprob", "claims", "https://arxiv.org/abs/2502.18581",
        "SelfCertainty of each claim's tokens; nats, <= 0.", level="claim", own=_self_certainty,
    ),
    evidence_method(
        "BoostedProbClaim", "claim_boosted_prob", "claim.boostedprob_score:BoostedProbClaim",
        "logprob", "claims boosted_probabilities", BOOSTED,
        "Negated mean boosted probability of each claim's tokens; -1 to 0.",
        level="claim", own=_boosted,
    ),
    evidence_method(
        "PointwiseMutualInformationClaim", "claim_pmi",
        "claim.pointwise_mutual_information:PointwiseMutualInformationClaim",
        "logprob", "claims greedy_lm_log_likelihoods", TUTORIAL,
        "What the prompt takes from each claim's negative log-probability, negated; nats.",
        level="claim",
    ),
    evidence_method(
        "ClaimConditionedProbabilityClaim", "claim_ccp",
        "claim.claim_conditioned_probability:ClaimConditionedProbabilityClaim",
        "logprob", "claims greedy_tokens_alternatives greedy_tokens_alternatives_nli", CCP,
        "Negated probability of what each claim means, among alternatives to its tokens; -1 to 0.",
        level="claim", options={"is_stopword": _is_no_stop_word},
    ),
    evidence_method(
        "FrequencyScoringClaim", "claim_frequency", "claim.frequency_scoring:FrequencyScoringClaim",
        "sampling", "claims nli_to_sample_texts", FREQUENCY,
        "Samples that contradict each claim, less those that entail it.", level="claim",
    ),
    evidence_method(
        "TokenSARClaim", "claim_token_sar", "claim.token_sar:TokenSARClaim",
        "sampling", "claims token_similarity", "https://arxiv.org/abs/2307.01379",
        "Each claim's part of TokenSAR; nats.", level="claim",
    ),
    evidence_method(
        "PTrueClaim", "claim_p_true", "claim.p_true:PTrueClaim",
        "prompting", "claims p_true_claim", "https://arxiv.org/abs/2207.05221",
        "Negative log-probability that the model calls each claim true; nats.", level="claim",
    ),
    evidence_method(
        "AttentionScoreClaim", "claim_attention_score", "claim.attention_score:AttentionScoreClaim",
        "attention", "claims attention_self", "https://openreview.net/forum?id=LYx4w3CAgy",
        "AttentionScore of each claim's tokens.", level="claim", own=_attention_score,
    ),
    evidence_method(
        "UHeadClaim", "claim_uhead", "",
        "hidden state", "claims head_claim_doubts", "https://aclanthology.org/2025.emnlp-main.1809",
        "A pre-trained head on what is inside the model: probability that each claim is wrong.",
        level="claim", own=_head,
    ),
)  # fmt: skip  # a table, one method a block
