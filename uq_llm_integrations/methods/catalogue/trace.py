"""The methods that read a candidate's own trace and nothing else."""

from __future__ import annotations

from uq_llm_integrations.methods import statistics
from uq_llm_integrations.methods.base import Method

TRACE_METHODS = (
    Method(
        "Perplexity",
        "perplexity",
        "perplexity:Perplexity",
        "logprob",
        "sequence",
        "https://aclanthology.org/2020.tacl-1.35",
        "Mean negative log-probability of the tokens, in nats (the logarithm of the perplexity).",
    ),
    Method(
        "MaximumSequenceProbability",
        "maxprob",
        "max_probability:MaximumSequenceProbability",
        "logprob",
        "sequence",
        "https://arxiv.org/abs/2406.15627",
        "Negative log-probability of the whole text, in nats.",
    ),
    Method(
        "MeanTokenEntropy",
        "entropy",
        "token_entropy:MeanTokenEntropy",
        "entropy",
        "sequence",
        "https://aclanthology.org/2020.tacl-1.35",
        "Mean entropy of the distributions that the tokens were drawn from, in nats.",
    ),
    Method(
        "TokenEntropy",
        None,
        "token_entropy:TokenEntropy",
        "entropy",
        "token",
        "https://aclanthology.org/2020.tacl-1.35",
        "Entropy at each token, in nats.",
    ),
    Method(
        "MaximumTokenProbability",
        None,
        "max_probability:MaximumTokenProbability",
        "logprob",
        "token",
        "https://arxiv.org/abs/2406.15627",
        "Negative log-probability of each token, in nats.",
    ),
    Method(
        "SelfCertainty",
        "self_certainty",
        "self_certainty:SelfCertainty",
        "distribution",
        "sequence",
        "https://arxiv.org/abs/2502.18581",
        "Negated mean divergence of the uniform distribution from the model's, in nats; <= 0.",
        exact=statistics.self_certainty,
    ),
    Method(
        "RenyiNeg",
        "renyi_neg",
        "renyi_neg:RenyiNeg",
        "distribution",
        "sequence",
        "https://arxiv.org/abs/2212.09171",
        "Mean Renyi divergence from uniform as lm-polygraph computes it, negated because that "
        "grows with certainty; in nats.",
        sign=-1,
        exact=statistics.renyi_neg,
        bounds=statistics.renyi_neg_bounds,
    ),
    Method(
        "FisherRao",
        "fisher_rao",
        "fisher_rao:FisherRao",
        "distribution",
        "sequence",
        "https://arxiv.org/abs/2212.09171",
        "Mean Fisher-Rao distance from uniform, negated because it grows with certainty; -1 to 0.",
        sign=-1,
        exact=statistics.fisher_rao,
        bounds=statistics.fisher_rao_bounds,
    ),
)
