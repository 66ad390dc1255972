"""Methods that look inside the model: hidden states and attention."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from uq_llm_integrations.methods.attention import attention_score, csl, rauq
from uq_llm_integrations.methods.base import evidence_method
from uq_llm_integrations.methods.embeddings import eigen_score
from uq_llm_integrations.records import Candidate


def _rauq(candidate: Candidate, gathered: Mapping[str, Any]) -> float:
    return rauq(candidate.trace, gathered["attention_self"], len(candidate.prompt_ids))


def _attention_score(candidate: Candidate, gathered: Mapping[str, Any]) -> float:
    return attention_score(gathered["attention_self"])


def _csl(candidate: Candidate, gathered: Mapping[str, Any]) -> float:
    return csl(candidate.trace.logprob, gathered["attention_weights_eliciting_prompt"])


def _density(name: str, candidate: Candidate, gathered: Mapping[str, Any]) -> float:
    score: float = getattr(gathered["density"], name)(gathered["embeddings_decoder"])
    return score


def _ppl_md(candidate: Candidate, gathered: Mapping[str, Any]) -> float:
    perplexity = -float(candidate.trace.logprob.mean())
    score: float = gathered["density"].ppl_md(gathered["embeddings_decoder"], perplexity)
    return score


def _head(candidate: Candidate, gathered: Mapping[str, Any]) -> float:
    doubt: float = gathered["head_doubt"]
    return doubt


def _eigen_score(candidate: Candidate, gathered: Mapping[str, Any]) -> float:
    return eigen_score(gathered["sample_embeddings"])


HIDDEN_METHODS = (
    evidence_method(
        "MahalanobisDistance", "mahalanobis", "mahalanobis_distance:MahalanobisDistanceSeq",
        "hidden state", "embeddings_decoder", "https://arxiv.org/abs/1807.03888",
        "Distance of the mean hidden state from those of the training texts.",
        own=partial(_density, "mahalanobis"),
    ),
    evidence_method(
        "RelativeMahalanobisDistance", "relative_mahalanobis",
        "relative_mahalanobis_distance:RelativeMahalanobisDistanceSeq",
        "hidden state", "embeddings_decoder background", "https://arxiv.org/abs/2209.15558",
        "The same, less the distance from texts of any kind.",
        own=partial(_density, "relative_mahalanobis"),
    ),
    evidence_method(
        "RDE", "rde", "rde:RDESeq",
        "hidden state", "embeddings_decoder", "https://aclanthology.org/2022.findings-acl.289",
        "Robust density estimation: the distance after kernel PCA, from a robust covariance.",
        own=partial(_density, "rde"),
    ),
    evidence_method(
        "PPLMD", "ppl_md", "ppl_md:PPLMDSeq",
        "hidden state", "embeddings_decoder ranks", "https://arxiv.org/abs/2209.15558",
        "Mean rank of perplexity and of Mahalanobis distance among the training texts; 0 to 1.",
        own=_ppl_md,
    ),
    evidence_method(
        "EigenScore", "eigen_score", "eigenscore:EigenScore",
        "hidden state", "sample_embeddings", "https://arxiv.org/abs/2402.03744",
        "Spread of the samples' hidden states: mean log eigenvalue of their covariance.",
        own=_eigen_score,
    ),
    evidence_method(
        "UHead", "uhead", "",
        "hidden state", "head_doubt", "https://arxiv.org/abs/2505.08200",
        "A head fitted on what is inside the model: probability that the answer is wrong.",
        own=_head,
    ),
)  # fmt: skip  # a table, one method a block

ATTENTION_METHODS = (
    evidence_method(
        "AttentionScore", "attention_score", "attention_score:AttentionScore",
        "attention", "attention_self", "https://openreview.net/forum?id=LYx4w3CAgy",
        "Negated summed log attention of each token to itself, mean over a middle layer's heads.",
        own=_attention_score,
    ),
    evidence_method(
        "RAUQ", "rauq", "rauq:RAUQ",
        "attention", "attention_self", "https://arxiv.org/abs/2505.20045",
        "Probabilities carried on from token to token by the most attentive heads; nats.",
        own=_rauq,
    ),
    evidence_method(
        "CSL", "csl", "csl:CSL",
        "attention", "attention_weights_eliciting_prompt",
        "https://aclanthology.org/2024.emnlp-main.578",
        "Negative log-probability, weighed by the attention of a prompt for a verdict; nats.",
        own=_csl,
    ),
)  # fmt: skip  # a table, one method a block
