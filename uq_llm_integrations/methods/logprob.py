"""Methods of the log-probabilities and the distributions that the tokens were sampled from.

Those of the trace alone cost nothing; they are numpy, and equal lm-polygraph's estimators of the
same names. Where a trace has only the top k, a formula returns what follows from them: an interval.
"""

from dataclasses import replace

import numpy as np

from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.backends.row_checks import check_scored
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics
from uq_llm_integrations.errors import EvidenceError
from uq_llm_integrations.methods.base import (
    Ends,
    Method,
    evidence_method,
    needs_exact_statistics,
    trace_method,
)
from uq_llm_integrations.methods.bounds import known_part, power_sum_bounds
from uq_llm_integrations.methods.context import Context, refuse_grammar
from uq_llm_integrations.methods.polygraph import statistic
from uq_llm_integrations.records import Candidate, Floats, TokenTrace

TUTORIAL = "https://arxiv.org/abs/2406.15627"
MALININ = "https://aclanthology.org/2020.tacl-1.35"
GNMT = "https://arxiv.org/abs/1609.08144"
DARRIN = "https://arxiv.org/abs/2212.09171"


def _nll(trace: TokenTrace) -> Floats:
    """Return [T] negative log-probabilities."""
    return -trace.logprob


def _exp(mean: float) -> float:
    with np.errstate(over="ignore"):  # what is not finite becomes a reason
        return float(np.exp(mean))


def _length_adjusted(values: Floats) -> float:
    """Return the sum of [T] values over Wu et al.'s length penalty, (5 + T)^a / (5 + 1)^a, a = 0.6.

    It lies between the sum (a = 0) and, for long texts, a multiple of the mean (a = 1). The paper
    found 0.6 to 0.7 usually best for translations.
    """
    return float(values.sum() * (6.0 / (5.0 + len(values))) ** 0.6)


def _entropies(trace: TokenTrace) -> Floats | Ends | None:
    """Return [T] entropies, or their bounds."""
    if trace.entropy is not None:
        return trace.entropy
    if (whole := with_sums(trace).entropy) is not None:
        return whole
    if trace.entropy_lower is None or trace.entropy_upper is None:
        return None
    return trace.entropy_lower, trace.entropy_upper


def with_sums(trace: TokenTrace) -> TokenTrace:
    """Return the trace with its exact statistics, where all V log-probabilities imply them."""
    top = trace.top_logprobs
    if trace.is_exact or top is None or top.shape[1] < trace.vocabulary_size:
        return trace
    return replace(trace, **exact_statistics(dense_rows(top)))


mean_nll = trace_method(
    "MeanNegativeLogLikelihood",
    alias="mean_nll",
    other_names=("Perplexity",),
    summary="Mean negative log-probability of the tokens, in nats: the logarithm of the "
    "perplexity, which lm-polygraph calls Perplexity.",
    reference=MALININ,
    range=(0, np.inf),
)(_nll)

perplexity = trace_method(
    "perplexity",
    transform=_exp,
    summary="Exponential of the mean negative log-probability of the tokens, at least 1.",
    reference=MALININ,
    range=(1, np.inf),
)(_nll)

sequence_nll = trace_method(
    "MaximumSequenceProbability",
    np.sum,
    alias="maxprob",
    other_names=("sequence_probability",),
    summary="Negative log-probability of the whole text, in nats.",
    reference=TUTORIAL,
    range=(0, np.inf),
)(_nll)

length_adjusted_nll = trace_method(
    "length_adjusted_nll",
    _length_adjusted,
    summary="Negative log-probability of the text, divided by a power of its length between the "
    "sum's (0) and the mean's (1); nats.",
    reference=GNMT,
    range=(0, np.inf),
)(_nll)

token_nll = trace_method(
    "MaximumTokenProbability",
    None,
    summary="Negative log-probability of each token, in nats.",
    reference=TUTORIAL,
    range=(0, np.inf),
)(_nll)

mean_entropy = trace_method(
    "MeanTokenEntropy",
    alias="entropy",
    summary="Mean entropy of the distributions that the tokens were sampled from, in nats.",
    reference=MALININ,
    range=(0, np.inf),
)(_entropies)

max_entropy = trace_method(
    "MaximumTokenEntropy",
    np.max,
    alias="max_entropy",
    summary="Highest entropy of the distributions that the tokens were sampled from, in nats.",
    reference=TUTORIAL,
    range=(0, np.inf),
)(_entropies)

token_entropy = trace_method(
    "TokenEntropy",
    None,
    summary="Entropy at each token, in nats.",
    reference=MALININ,
    range=(0, np.inf),
)(_entropies)


@trace_method(
    "SelfCertainty",
    alias="self_certainty",
    summary="Negated mean divergence of the uniform distribution from the model's, in nats; <= 0.",
    reference="https://arxiv.org/abs/2502.18581",
    range=(-np.inf, 0),
    requirements=(needs_exact_statistics,),
)
def self_certainty(trace: TokenTrace) -> Floats | None:
    """Return [T] mean(log p) + log(support), with the mean over all tokens that are possible."""
    trace = with_sums(trace)
    if trace.mean_logprob is None or trace.support is None:
        return None
    return np.asarray(trace.mean_logprob + np.log(trace.support))


@trace_method(
    "RenyiNeg",
    alias="renyi_neg",
    summary="Mean Renyi divergence from uniform as lm-polygraph computes it, negated because that "
    "grows with certainty; in nats.",
    reference=DARRIN,
    range=(0, np.inf),
)
def renyi_neg(trace: TokenTrace) -> Ends | None:
    """Return [T] values at lm-polygraph's alpha 1/2 and temperature 2.

    With q = p ** (1/2) / sum(p ** (1/2)): 2 log sum(q ** (1/2)) + log V. Under a grammar, V is
    the number of tokens that it allows.
    """
    if (ratios := _ratios(trace)) is None:
        return None
    sizes = _sizes(trace)
    low, high = (2.0 * np.log(end) + np.log(v) for end, v in zip(ratios, sizes, strict=True))
    return low, high


@trace_method(
    "FisherRao",
    alias="fisher_rao",
    summary="Mean Fisher-Rao distance from uniform, negated because it grows with certainty; "
    "-1 to 0.",
    reference=DARRIN,
    range=(-1, 0),
)
def fisher_rao(trace: TokenTrace) -> Ends | None:
    """Return [T] values at temperature 2: -2 / pi arccos(sum((q / V) ** (1/2))), q, V as above."""
    if (ratios := _ratios(trace)) is None:
        return None
    pairs = zip(ratios, reversed(_sizes(trace)), strict=True)
    cosines = (np.clip(end / np.sqrt(size), -1.0, 1.0) for end, size in pairs)
    low, high = (-2.0 / np.pi * np.arccos(cosine) for cosine in cosines)
    return low, high


def _sizes(trace: TokenTrace) -> Ends:
    """Return [T] the least and the most tokens that the uniform distribution can be over.

    Those of the vocabulary, but under a grammar those that it allows: as many as are known.
    """
    whole = np.full(len(trace), float(trace.vocabulary_size))
    if not trace.grammar:
        return whole, whole
    if trace.support is not None:
        return trace.support, trace.support
    top = trace.top_logprobs
    return np.maximum(0 if top is None else np.isfinite(top).sum(-1), np.ones(len(trace))), whole


def _ratios(trace: TokenTrace) -> Ends | None:
    """Return sum(q ** (1/2)), from 1 for one certain token to V ** (1/2) for the uniform."""
    trace = with_sums(trace)
    if trace.root_sum is not None and trace.fourth_root_sum is not None:
        exact = np.asarray(trace.fourth_root_sum / np.sqrt(trace.root_sum))
        return exact, exact
    if trace.rank is None:
        return None
    known = known_part(trace)
    fourth_low, fourth_high = power_sum_bounds(known, 0.25)
    root_low, root_high = power_sum_bounds(known, 0.5)
    most = np.sqrt(trace.vocabulary_size)
    low, high = fourth_low / np.sqrt(root_high), fourth_high / np.sqrt(root_low)
    return np.maximum(low, 1.0), np.minimum(high, most)


@statistic("entropy")
async def entropies(context: Context) -> list[Floats]:
    """Return [T] entropies of each candidate's distributions."""
    return [exact_entropies(one.trace) for one in context.candidates]


def exact_entropies(trace: TokenTrace) -> Floats:
    """Return [T] entropies of the distributions, in nats; raise EvidenceError for bounds only."""
    entropy = with_sums(trace).entropy
    if entropy is None:
        raise EvidenceError(str(trace.why_inexact))
    return entropy


@statistic("greedy_lm_log_likelihoods")
async def logprobs_without_prompt(context: Context) -> list[Floats]:
    """Return [T] log-probabilities of each candidate's tokens without the prompt before them.

    The first token has nothing before it; it counts 0, so that it is taken as it is.
    """
    return await together([_without_prompt(context, one) for one in context.candidates])


async def _without_prompt(context: Context, candidate: Candidate) -> Floats:
    refuse_grammar(candidate, "log-probabilities without the prompt")
    first, *rest = candidate.token_ids
    if not rest:
        return np.zeros(1)
    (scored,) = await context.backend.score_all((first,), (tuple(rest),))
    check_scored([scored])
    return np.concatenate([np.zeros(1), scored.trace.logprob])


async def pointwise_information(context: Context) -> list[Floats]:
    """Return [T] negated pointwise mutual information of each candidate's tokens and the prompt."""
    alone = await context.of(logprobs_without_prompt)
    return [lm - one.trace.logprob for lm, one in zip(alone, context.candidates, strict=True)]


@evidence_method(
    "MeanPointwiseMutualInformation",
    alias="mean_pmi",
    summary="Mean of what the prompt takes from each token's negative log-probability, negated; "
    "nats.",
    reference=TUTORIAL,
    cost="one pass without the prompt",
)
async def mean_pmi(context: Context) -> list[float]:
    return [float(row.mean()) for row in await context.of(pointwise_information)]


@evidence_method(
    "PointwiseMutualInformation",
    alias="pmi",
    level="token",
    summary="What the prompt takes from each token's negative log-probability, negated; nats.",
    reference=TUTORIAL,
    cost="one pass without the prompt",
)
async def pmi(context: Context) -> list[Floats]:
    return await context.of(pointwise_information)


METHODS: tuple[Method, ...] = (
    mean_nll,
    perplexity,
    sequence_nll,
    length_adjusted_nll,
    token_nll,
    mean_entropy,
    max_entropy,
    token_entropy,
    self_certainty,
    renyi_neg,
    fisher_rao,
    mean_pmi,
    pmi,
)
