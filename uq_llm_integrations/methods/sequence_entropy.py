"""Estimates, from samples, of the entropy of the texts that a prompt leads to."""

import numpy as np

from uq_llm_integrations.errors import EvidenceError
from uq_llm_integrations.methods.base import Method, evidence_method, needs_exact_statistics
from uq_llm_integrations.methods.context import Context
from uq_llm_integrations.methods.logprob import exact_entropies
from uq_llm_integrations.methods.sampling import (
    GAL,
    SEMANTIC,
    sample_logprobs,
    sample_tokens,
    samples,
)
from uq_llm_integrations.records import Floats


async def sample_entropies(context: Context) -> list[Floats]:
    """Return [T] of each sample: the exact entropies of its tokens' distributions, in nats.

    Raises EvidenceError where a sample has bounds only.
    """
    try:
        return [exact_entropies(one.trace) for one in await context.of(samples)]
    except EvidenceError as error:
        raise EvidenceError(f"a sample has no exact entropies: {error}") from error


@evidence_method(
    "MonteCarloSequenceEntropy",
    alias="mc_entropy",
    summary="Mean negative log-probability of the samples, which estimates the text's entropy; "
    "nats.",
    reference=SEMANTIC,
    range=(0, np.inf),
    category="sampling",
    cost="samples",
)
async def mc_entropy(context: Context) -> list[float]:
    logprobs = sample_logprobs(await context.of(samples))
    return [-float(np.mean(logprobs))] * len(context.candidates)


@evidence_method(
    "MonteCarloNormalizedSequenceEntropy",
    alias="mc_normalized_entropy",
    summary="The same, each sample's divided by its number of tokens; nats.",
    reference=GAL,
    range=(0, np.inf),
    category="sampling",
    cost="samples",
)
async def mc_normalized_entropy(context: Context) -> list[float]:
    found = await context.of(samples)
    pairs = zip(sample_logprobs(found), sample_tokens(found), strict=True)
    means = [logprob / len(tokens) for logprob, tokens in pairs if tokens]
    return [-float(np.mean(means))] * len(context.candidates)


@evidence_method(
    "RaoBlackwellEntropy",
    alias="rb_entropy",
    summary="Mean over the samples of the sum of their tokens' exact entropies, which estimates "
    "the text's entropy with less noise; nats.",
    reference="https://arxiv.org/abs/2504.10637",
    range=(0, np.inf),
    requirements=(needs_exact_statistics,),
    category="sampling",
    cost="samples",
)
async def rb_entropy(context: Context) -> list[float]:
    """Return the mean over the samples of sum_t H_t, in nats; higher is more uncertain.

    H_t is the exact entropy of the distribution that token t was sampled from, a function of the
    tokens before it; after the end it is 0. By the chain rule of entropy,

        H(Y) = sum_t H(Y_t | Y_<t) = sum_t E[H_t] = E[sum_t H_t],

    so the mean is unbiased where the samples are drawn from the model's own distribution: at
    temperature 1, without top-p and the like. Y is the text up to its end or to `max_tokens`; a
    sample without a text is left out, as by all methods that compare samples.

    H_t is the expectation of -log p(Y_t | Y_<t) given the tokens before it (Rao-Blackwell). By the
    law of total variance, no term varies more than the plain estimate's at its place. The sum
    varies less, too, where what is still to come is about as open after an unlikely token as after
    a likely one. That is usual and not certain: where all texts are equally probable, the plain
    estimate does not vary at all.
    """
    totals = [float(row.sum()) for row in await context.of(sample_entropies)]
    return [float(np.mean(totals))] * len(context.candidates)


METHODS: tuple[Method, ...] = (mc_entropy, mc_normalized_entropy, rb_entropy)
