"""Methods that give each claim of an answer its own score, and the claims themselves."""

import asyncio
from itertools import islice, product

import numpy as np

from uq_llm_integrations.errors import EvidenceError, reason
from uq_llm_integrations.methods.alternatives import boosted
from uq_llm_integrations.methods.base import Method, evidence_method, needs_exact_statistics
from uq_llm_integrations.methods.context import Context, Evidence
from uq_llm_integrations.methods.logprob import entropies, pointwise_information, with_sums
from uq_llm_integrations.methods.options import Span, Spans
from uq_llm_integrations.methods.polygraph import polygraph_method, statistic
from uq_llm_integrations.methods.prompting import true_logprobs
from uq_llm_integrations.methods.sampling import LABELS, judged_entailments, samples
from uq_llm_integrations.methods.token_alignment import token_spans, tokens_within
from uq_llm_integrations.records import Claim, Floats

# lm-polygraph's words, so that scores can be compared.
P_TRUE_CLAIM = (
    "Question: {question}\n Possible answer:{answer}\n "
    "Is the possible answer True or False? The possible answer is: "
)

TUTORIAL = "https://arxiv.org/abs/2406.15627"
CCP = "https://arxiv.org/abs/2403.04696"
BOOSTED = "https://aclanthology.org/2025.emnlp-main.166"


@statistic("claims")
async def claims(context: Context) -> list[list[Claim]]:
    """Return the claims of each candidate: its parts, and the tokens that hold some of each."""
    rows = []
    for candidate in context.candidates:
        spans = await asyncio.to_thread(_found, context.options.claims, candidate.text)
        said = await token_spans(context.backend, candidate)
        texts = (candidate.text[start:end] for start, end in spans)
        tokens = (tokens_within(said, span) for span in spans)
        rows.append([Claim(*pair) for pair in zip(texts, tokens, strict=True)])
    return rows


def _found(spans: Spans, text: str) -> list[Span]:
    try:
        found = [(int(start), int(end)) for start, end in spans(text)]
    except Exception as error:  # the caller's own function, and so anything
        raise EvidenceError(f"the claims of an answer cannot be found: {reason(error)}") from error
    for start, end in found:
        if not 0 <= start < end <= len(text):
            raise EvidenceError(
                f"a claim from {start} to {end} is no part of {len(text)} characters"
            )
    return found


async def claim_labels(context: Context) -> list[Floats]:
    """Return [claims, N, 3] for each candidate: probabilities of `LABELS`, given each sample."""
    texts = [one.text for one in await context.of(samples)]
    rows = await context.of(claims)
    pairs = [(text, claim.text) for row in rows for claim, text in product(row, texts)]
    if not pairs:
        return [np.zeros((0, len(texts), len(LABELS))) for _ in rows]
    shares = await judged_entailments(context, pairs)
    ends = np.cumsum([len(row) for row in rows])[:-1]
    return np.split(shares.reshape(-1, len(texts), len(LABELS)), ends)


@statistic("nli_to_sample_texts")
async def _claim_label_tables(context: Context) -> list[list[list[dict[str, float]]]]:
    return [
        [[dict(zip(LABELS, share, strict=True)) for share in claim] for claim in one.tolist()]
        for one in await context.of(claim_labels)
    ]


@statistic("p_true_claim")
async def true_claims(context: Context) -> list[list[float]]:
    """Return for each candidate the log-probability, in nats, of True for each claim."""
    rows = await context.of(claims)
    texts = [claim.text for row in rows for claim in row]
    found = iter(await true_logprobs(context, P_TRUE_CLAIM, texts))
    return [list(islice(found, len(row))) for row in rows]


async def _token_logprobs(context: Context) -> list[Floats]:
    return [one.trace.logprob for one in context.candidates]


async def _token_self_certainty(context: Context) -> list[Floats]:
    values = []
    for trace in (with_sums(one.trace) for one in context.candidates):
        if trace.mean_logprob is None or trace.support is None:
            raise EvidenceError(str(trace.why_inexact))
        values.append(trace.mean_logprob + np.log(trace.support))
    return values


async def _parts(context: Context, evidence: Evidence[list[Floats]]) -> list[list[Floats]]:
    """Return for each candidate, for each claim: the values of its tokens."""
    rows, values = await context.of(claims), await context.of(evidence)
    pairs = zip(values, rows, strict=True)
    return [[row[list(claim.tokens)] for claim in found] for row, found in pairs]


@evidence_method(
    "MaximumClaimProbability",
    alias="claim_maxprob",
    summary="Negative log-probability of each claim's tokens; nats.",
    range=(0, np.inf),
    level="claim",
    reference=TUTORIAL,
)
async def claim_maxprob(context: Context) -> list[Floats]:
    rows = await _parts(context, _token_logprobs)
    return [np.array([-part.sum() for part in row]) for row in rows]


async def _mean_nlls(context: Context) -> list[Floats]:
    rows = await _parts(context, _token_logprobs)
    return [np.array([-part.mean() for part in row]) for row in rows]


@evidence_method(
    "MeanNegativeLogLikelihoodClaim",
    alias="claim_mean_nll",
    other_names=("PerplexityClaim",),
    summary="Mean negative log-probability of each claim's tokens, in nats; lm-polygraph calls it "
    "PerplexityClaim.",
    range=(0, np.inf),
    level="claim",
    reference=TUTORIAL,
)
async def claim_mean_nll(context: Context) -> list[Floats]:
    return await context.of(_mean_nlls)


@evidence_method(
    "claim_perplexity",
    summary="Perplexity of each claim's tokens: exp of their mean negative log-probability; >= 1.",
    range=(1, np.inf),
    level="claim",
    reference=TUTORIAL,
)
async def claim_perplexity(context: Context) -> list[Floats]:
    return [np.exp(row) for row in await context.of(_mean_nlls)]


@evidence_method(
    "MaxTokenEntropyClaim",
    alias="claim_entropy",
    summary="Highest entropy at each claim's tokens; nats.",
    range=(0, np.inf),
    requirements=(needs_exact_statistics,),
    level="claim",
    reference=TUTORIAL,
)
async def claim_entropy(context: Context) -> list[Floats]:
    rows = await _parts(context, entropies)
    return [np.array([part.max() for part in row]) for row in rows]


@evidence_method(
    "SelfCertaintyClaim",
    alias="claim_self_certainty",
    level="claim",
    summary="SelfCertainty of each claim's tokens; nats, <= 0.",
    reference="https://arxiv.org/abs/2502.18581",
    range=(-np.inf, 0),
    requirements=(needs_exact_statistics,),
)
async def claim_self_certainty(context: Context) -> list[Floats]:
    rows = await _parts(context, _token_self_certainty)
    return [np.array([part.mean() for part in row]) for row in rows]


@evidence_method(
    "BoostedProbClaim",
    alias="claim_boosted_prob",
    level="claim",
    summary="Negated mean boosted probability of each claim's tokens; -1 to 0.",
    reference=BOOSTED,
    range=(-1, 0),
    cost="one pass unless enough top log-probabilities were requested",
)
async def claim_boosted_prob(context: Context) -> list[Floats]:
    rows = await _parts(context, boosted)
    return [np.array([-part.mean() for part in row]) for row in rows]


@evidence_method(
    "PointwiseMutualInformationClaim",
    alias="claim_pmi",
    summary="What the prompt takes from each claim's negative log-probability, negated; nats.",
    cost="one pass without the prompt",
    level="claim",
    reference=TUTORIAL,
)
async def claim_pmi(context: Context) -> list[Floats]:
    rows = await _parts(context, pointwise_information)
    return [np.array([part.sum() for part in row]) for row in rows]


@evidence_method(
    "FrequencyScoringClaim",
    alias="claim_frequency",
    level="claim",
    category="sampling",
    summary="Number of samples that contradict each claim, less those that entail it.",
    reference="https://arxiv.org/abs/2402.10978",
    cost="samples, entailment of each claim by each sample",
    judged_by="entailment",
)
async def claim_frequency(context: Context) -> list[Floats]:
    best = [shares.argmax(-1) for shares in await context.of(claim_labels)]
    entails, contradicts = LABELS.index("entail"), LABELS.index("contra")
    return [np.sum((one == contradicts) * 1.0 - (one == entails), axis=1) for one in best]


@evidence_method(
    "PTrueClaim",
    alias="claim_p_true",
    level="claim",
    category="prompting",
    summary="Negative log-probability that the model calls each claim true; nats.",
    reference="https://arxiv.org/abs/2207.05221",
    range=(0, np.inf),
    cost="one pass of another prompt for each claim",
)
async def claim_p_true(context: Context) -> list[Floats]:
    return [-np.array(row) for row in await context.of(true_claims)]


def _is_no_stop_word(word: object) -> bool:
    """Return False: in lm-polygraph's own pipeline words are ids, none of which is a stop word."""
    return False


METHODS: tuple[Method, ...] = (
    claim_maxprob,
    claim_mean_nll,
    claim_perplexity,
    claim_entropy,
    claim_self_certainty,
    claim_boosted_prob,
    claim_pmi,
    polygraph_method(
        "ClaimConditionedProbabilityClaim",
        "ClaimConditionedProbabilityClaim",
        "claims greedy_tokens_alternatives greedy_tokens_alternatives_nli",
        {"is_stopword": _is_no_stop_word},
        alias="claim_ccp",
        level="claim",
        summary="Negated probability of what each claim means, among alternatives to its tokens; "
        "-1 to 0.",
        reference=CCP,
        range=(-1, 0),
        cost="one pass unless 10 top log-probabilities were requested, "
        "entailment of the alternatives of each token",
        judged_by="entailment",
    ),
    claim_frequency,
    polygraph_method(
        "TokenSARClaim",
        "TokenSARClaim",
        "claims token_similarity",
        alias="claim_token_sar",
        level="claim",
        category="sampling",
        summary="Each claim's part of TokenSAR; nats.",
        reference="https://arxiv.org/abs/2307.01379",
        range=(0, np.inf),
        cost="similarity for each token",
        judged_by="similarity",
    ),
    claim_p_true,
)
