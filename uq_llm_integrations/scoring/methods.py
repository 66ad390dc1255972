"""The catalogue of methods: name, lm-polygraph estimator, what it needs, direction, level."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from uq_llm_integrations.errors import UnknownMethodError
from uq_llm_integrations.records import Floats, TokenTrace
from uq_llm_integrations.scoring import statistics

Need = Literal["logprob", "entropy", "distribution"]


@dataclass(frozen=True)
class Method:
    """One uncertainty method.

    `needs` is what it reads of a trace: the log-probabilities of the tokens, the entropies, or the
    whole distributions. The latter have `exact` and `bounds`, formulas for one value a token from
    the probe's sums and from the top k. `sign` turns lm-polygraph's value so that higher is more
    uncertain.
    """

    name: str
    alias: str | None
    estimator: str
    needs: Need
    level: Literal["sequence", "token"]
    reference: str
    summary: str
    sign: Literal[1, -1] = 1
    exact: Callable[[TokenTrace], Floats] | None = None
    bounds: Callable[[TokenTrace], tuple[Floats, Floats]] | None = None


_CATALOGUE = (
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

METHODS: dict[str, Method] = {method.name: method for method in _CATALOGUE}
"""All methods by lm-polygraph's names."""

ALIASES: dict[str, str] = {method.alias: method.name for method in _CATALOGUE if method.alias}
"""Shorter names."""

DEFAULT_METHODS = ("entropy", "perplexity", "maxprob")


def find_method(name: str) -> Method:
    """Return the method of this name or alias; raise UnknownMethodError for any other."""
    method = METHODS.get(ALIASES.get(name, name))
    if method is None:
        raise UnknownMethodError(name, [*METHODS, *ALIASES])
    return method


def check_methods(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple after making sure that each is known."""
    checked = (names,) if isinstance(names, str) else tuple(names)
    for name in checked:
        find_method(name)
    return checked
