"""What the alternatives of each token say: boosted probabilities, and CCP token by token.

T tokens, each with the most probable tokens in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uq_llm_integrations.methods.polygraph import load_estimator
from uq_llm_integrations.records import Floats, TokenTrace

Alternatives = Sequence[Sequence[tuple[int, float]]]
"""For each token, itself and others with their log-probabilities, itself first."""

Verdicts = Sequence[Sequence[Sequence[str | None]]]
"""For each token, what each alternative (in rows) is to each: 'entail', 'contra' or 'neutral'."""

SMALLEST_JUMP, RELATIVE_JUMP = 0.005, 0.3


def boosted_probabilities(trace: TokenTrace, token_ids: Sequence[int]) -> Floats | None:
    """Return [T] BoostedProb, https://aclanthology.org/2025.emnlp-main.166; high is certain.

    The tokens above the last steep fall of the sorted probabilities, one of more than 0.005 and of
    30 percent, dominate; one of them has the probability of all of them, any other its own. None
    where the trace has too few top log-probabilities to tell where the last fall is.
    """
    if trace.top_logprobs is None or trace.top_ids is None:
        return None
    order = np.argsort(-trace.top_logprobs, axis=1, kind="stable")
    ids = np.take_along_axis(trace.top_ids, order, 1)
    probabilities = np.exp(np.take_along_axis(trace.top_logprobs, order, 1))
    is_whole = ids.shape[1] == trace.vocabulary_size
    if not is_whole and (probabilities[:, -1] > SMALLEST_JUMP).any():
        return None
    above, falls = probabilities[:, :-1], -np.diff(probabilities, axis=1)
    is_steep = (falls > RELATIVE_JUMP * above) & (falls > SMALLEST_JUMP)
    # The number of tokens above the last steep fall, 0 where there is none.
    count = (is_steep * np.arange(1, ids.shape[1])).max(1, initial=0)
    dominates = np.arange(ids.shape[1]) < count[:, np.newaxis]
    is_dominant = ((ids == np.asarray(token_ids)[:, np.newaxis]) & dominates).any(1)
    mass = (probabilities * dominates).sum(1)
    return np.where(is_dominant, mass, np.exp(trace.logprob))


def token_ccp(alternatives: Alternatives, verdicts: Verdicts) -> Floats:
    """Return [T] claim-conditioned probability, https://arxiv.org/abs/2403.04696; high is certain.

    The share that the alternatives which mean the same have of those that mean the same or the
    opposite, by lm-polygraph's estimator, to which each token is a text of its own.
    """
    ccp = load_estimator("claim_conditioned_probability:ClaimConditionedProbability")
    stats = {
        "greedy_tokens": [[token] for token in alternatives],
        "greedy_tokens_alternatives": [[token] for token in alternatives],
        "greedy_tokens_alternatives_nli": [[verdict] for verdict in verdicts],
    }
    return np.asarray(-ccp(stats), np.float64)
