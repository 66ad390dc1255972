"""Methods that look at the text without its prompt, too."""

from __future__ import annotations

from uq_llm_integrations.methods.base import evidence_method

TUTORIAL = "https://arxiv.org/abs/2406.15627"

UNCONDITIONAL_METHODS = (
    evidence_method(
        "MeanPointwiseMutualInformation", "mean_pmi",
        "pointwise_mutual_information:MeanPointwiseMutualInformation",
        "logprob", "greedy_lm_log_likelihoods", TUTORIAL,
        "Mean of what the prompt takes from each token's negative log-probability, negated; nats.",
    ),
    evidence_method(
        "PointwiseMutualInformation", "pmi",
        "pointwise_mutual_information:PointwiseMutualInformation",
        "logprob", "greedy_lm_log_likelihoods", TUTORIAL,
        "The same at each token.", level="token",
    ),
    evidence_method(
        "MeanConditionalPointwiseMutualInformation", "mean_cpmi",
        "conditional_pointwise_mutual_information:MeanConditionalPointwiseMutualInformation",
        "logprob", "greedy_lm_log_likelihoods entropy", "https://arxiv.org/abs/2210.13210",
        "The mean where only tokens of high entropy count what they have without the prompt; nats.",
    ),
    evidence_method(
        "ConditionalPointwiseMutualInformation", "cpmi",
        "conditional_pointwise_mutual_information:ConditionalPointwiseMutualInformation",
        "logprob", "greedy_lm_log_likelihoods entropy", "https://arxiv.org/abs/2210.13210",
        "The same at each token.", level="token",
    ),
)  # fmt: skip  # a table, one method a block
