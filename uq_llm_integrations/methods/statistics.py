"""From a trace to what the estimators read, and the sums that stand in for whole distributions.

An estimator that reads whole distributions (`greedy_log_probs`) gets them where the trace holds all
V log-probabilities. Elsewhere the probe's sums give the same number by the estimator's own formula,
written out below for its default arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from uq_llm_integrations.methods.bounds import known_part, power_sum_bounds
from uq_llm_integrations.records import Candidate, Claim, Floats, TokenTrace

Interval = tuple[Floats, Floats]


def log_likelihoods(trace: TokenTrace) -> dict[str, Any]:
    """Return lm-polygraph's log-likelihoods of the tokens, a batch of one."""
    return {"greedy_log_likelihoods": [trace.logprob]}


def entropies(entropy: Floats) -> dict[str, Any]:
    """Return lm-polygraph's token entropies, a batch of one."""
    return {"entropy": [entropy]}


def of_evidence(candidate: Candidate, gathered: Mapping[str, Any]) -> dict[str, Any]:
    """Return the candidate and what was gathered for it as lm-polygraph's statistics.

    A batch of one. What each claim was asked for lies outside of the batch, as in lm-polygraph.
    """
    stats = log_likelihoods(candidate.trace)
    stats |= {"greedy_tokens": [list(candidate.token_ids)], "greedy_texts": [candidate.text]}
    for name, value in gathered.items():
        stats[name] = value[np.newaxis] if isinstance(value, np.ndarray) else [value]
    if (classes := gathered.get("semantic_classes_entail")) is not None:
        members = {sample: place for place, one in enumerate(classes) for sample in one}
        stats["semantic_classes_entail"] = {
            "class_to_sample": {0: classes},
            "sample_to_class": {0: members},
        }
    if (claims := gathered.get("claims")) is not None:
        stats["claims"] = [[_polygraph_claim(claim) for claim in claims]]
        stats["p_true_claim"] = gathered.get("p_true_claim")
    return stats


def _polygraph_claim(claim: Claim) -> Any:
    places = list(claim.tokens)
    return SimpleNamespace(claim_text=claim.text, sentence=claim.text, aligned_token_ids=places)


def self_certainty(trace: TokenTrace) -> Floats:
    """Return [T] the negated divergence of the uniform distribution from the token's.

    SelfCertainty, https://arxiv.org/abs/2502.18581: mean(log p) + log(support).
    """
    assert trace.mean_logprob is not None and trace.support is not None
    return np.asarray(trace.mean_logprob + np.log(trace.support))


def renyi_neg(trace: TokenTrace) -> Floats:
    """Return [T] lm-polygraph's RenyiNeg at alpha 1/2 and temperature 2, before it is turned.

    With q = p ** (1/2) / sum(p ** (1/2)): -2 log sum(q ** (1/2)) - log V.
    """
    return _renyi_neg(_ratio(trace), trace.vocabulary_size)


def fisher_rao(trace: TokenTrace) -> Floats:
    """Return [T] lm-polygraph's FisherRao at temperature 2, before it is turned.

    With q as above: 2 / pi arccos(sum((q / V) ** (1/2))).
    """
    return _fisher_rao(_ratio(trace), trace.vocabulary_size)


def renyi_neg_bounds(trace: TokenTrace) -> Interval:
    """Return [T] lower and upper bounds of `renyi_neg` from the top k."""
    low, high = _ratio_bounds(trace)
    return _renyi_neg(high, trace.vocabulary_size), _renyi_neg(low, trace.vocabulary_size)


def fisher_rao_bounds(trace: TokenTrace) -> Interval:
    """Return [T] lower and upper bounds of `fisher_rao` from the top k."""
    low, high = _ratio_bounds(trace)
    return _fisher_rao(high, trace.vocabulary_size), _fisher_rao(low, trace.vocabulary_size)


def _ratio(trace: TokenTrace) -> Floats:
    """Return sum(q ** (1/2)), from 1 for one certain token to V ** (1/2) for the uniform."""
    assert trace.root_sum is not None and trace.fourth_root_sum is not None
    return np.asarray(trace.fourth_root_sum / np.sqrt(trace.root_sum))


def _ratio_bounds(trace: TokenTrace) -> Interval:
    known = known_part(trace)
    fourth_low, fourth_high = power_sum_bounds(known, 0.25)
    root_low, root_high = power_sum_bounds(known, 0.5)
    most = np.sqrt(trace.vocabulary_size)
    low, high = fourth_low / np.sqrt(root_high), fourth_high / np.sqrt(root_low)
    return np.maximum(low, 1.0), np.minimum(high, most)


def _renyi_neg(ratio: Floats, vocabulary_size: int) -> Floats:
    return np.asarray(-2.0 * np.log(ratio) - np.log(vocabulary_size))


def _fisher_rao(ratio: Floats, vocabulary_size: int) -> Floats:
    cosine = np.clip(ratio / np.sqrt(vocabulary_size), -1.0, 1.0)
    return np.asarray(2.0 / np.pi * np.arccos(cosine))
