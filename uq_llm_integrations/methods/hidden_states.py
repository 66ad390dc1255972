"""Methods that read hidden states: distances from training texts, EigenScore, supervised heads.

Layers count as in `Inspection`. All scores are higher where the model is less certain.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np

from uq_llm_integrations.backends.base import Capabilities
from uq_llm_integrations.errors import ConfigurationError, EvidenceError
from uq_llm_integrations.methods.alternatives import top_traces
from uq_llm_integrations.methods.base import (
    Method,
    Value,
    evidence_method,
    needs_activations,
    values_of,
)
from uq_llm_integrations.methods.claims import claims
from uq_llm_integrations.methods.context import (
    ONE_PASS,
    Context,
    forward_pass,
    inspect_candidates,
    refuse_grammar,
)
from uq_llm_integrations.methods.fitted.embeddings import mean_embedding, sample_embedding
from uq_llm_integrations.methods.options import Density, Head, MethodOptions
from uq_llm_integrations.methods.polygraph import statistic
from uq_llm_integrations.methods.sampling import samples
from uq_llm_integrations.records import Activations, Candidate, Floats, Inspection, Singles


@runtime_checkable
class ClaimHead(Head, Protocol):
    """A supervised head that scores parts of an answer, too."""

    def doubts(
        self, candidate: Candidate, seen: Activations, claims: Sequence[Sequence[int]]
    ) -> Floats:
        """Return the probability that each claim is wrong, given the indices of its tokens."""


def needs_density(capabilities: Capabilities, options: MethodOptions) -> str | None:
    """Require a density of the hidden states of training texts."""
    if options.density is not None:
        return None
    return "a density fitted on training texts: MethodOptions(density=fit_density(...))"


def needs_background(capabilities: Capabilities, options: MethodOptions) -> str | None:
    """Require that the density was fitted on texts of any kind, too."""
    if options.density is None or options.density.has_background:
        return None
    return "a density fitted with a background: fit_density(..., background=...)"


def needs_ranks(capabilities: Capabilities, options: MethodOptions) -> str | None:
    """Require that the density knows how likely the training texts were."""
    if options.density is None or options.density.has_ranks:
        return None
    return "a density fitted with the perplexities of its texts: fit_density(...)"


def needs_head(capabilities: Capabilities, options: MethodOptions) -> str | None:
    """Require a supervised head."""
    if options.head is not None:
        return None
    return "a head fitted on labelled answers: MethodOptions(head=fit_head(...))"


def needs_claim_head(capabilities: Capabilities, options: MethodOptions) -> str | None:
    """Require a supervised head that scores claims."""
    if isinstance(options.head, ClaimHead):
        return None
    return "a head for claims: MethodOptions(head=LuhHead.from_pretrained(...))"


@statistic("embeddings_decoder", requirements=(needs_activations, needs_density))
async def embeddings(context: Context) -> list[Singles]:
    """Return [D] for each candidate: its mean hidden state at the layer of the density."""
    layer = _density(context.options).layer
    seen = await inspect_candidates(context, Inspection((layer,)))
    return [mean_embedding(one.hidden[layer]) for one in seen]


def _density(options: MethodOptions) -> Density:
    if options.density is None:
        raise EvidenceError("no density was fitted; see fit_density")
    return options.density


def _density_layer(options: MethodOptions) -> Inspection | None:
    return Inspection((options.density.layer,)) if options.density else None


@evidence_method(
    "MahalanobisDistance",
    alias="mahalanobis",
    other_names=("MahalanobisDistanceSeq",),
    summary="Distance of the mean hidden state from those of the training texts.",
    reference="https://arxiv.org/abs/1807.03888",
    category="hidden state",
    range=(0.0, math.inf),
    cost=ONE_PASS,
    requirements=(needs_activations, needs_density),
    inspection=_density_layer,
)
async def mahalanobis_method(context: Context) -> list[Value]:
    """Return the distance of each candidate."""
    density, own = _density(context.options), await context.of(embeddings)
    return await asyncio.to_thread(values_of, density.mahalanobis, zip(own, strict=True))


@evidence_method(
    "RelativeMahalanobisDistance",
    alias="relative_mahalanobis",
    other_names=("RelativeMahalanobisDistanceSeq",),
    summary="The same, less the distance from texts of any kind.",
    reference="https://arxiv.org/abs/2209.15558",
    category="hidden state",
    cost=ONE_PASS,
    requirements=(needs_activations, needs_density, needs_background),
    inspection=_density_layer,
)
async def relative_mahalanobis_method(context: Context) -> list[Value]:
    """Return the relative distance of each candidate."""
    density = _density(context.options)
    if not density.has_background:
        raise EvidenceError("the density was fitted without a background; see fit_density")
    own = await context.of(embeddings)
    return await asyncio.to_thread(values_of, density.relative_mahalanobis, zip(own, strict=True))


@evidence_method(
    "RDE",
    alias="rde",
    other_names=("RDESeq",),
    summary="Robust density estimation: the distance after kernel PCA, from a robust covariance.",
    reference="https://aclanthology.org/2022.findings-acl.289",
    category="hidden state",
    range=(0.0, math.inf),
    cost=ONE_PASS,
    requirements=(needs_activations, needs_density),
    inspection=_density_layer,
)
async def rde_method(context: Context) -> list[Value]:
    """Return the robust distance of each candidate."""
    density, own = _density(context.options), await context.of(embeddings)
    return await asyncio.to_thread(values_of, density.rde, zip(own, strict=True))


@evidence_method(
    "PPLMD",
    alias="ppl_md",
    other_names=("PPLMDSeq",),
    summary="Mean rank of perplexity and of Mahalanobis distance among the training texts; 0 to 1.",
    reference="https://arxiv.org/abs/2209.15558",
    category="hidden state",
    range=(0.0, 1.0),
    cost=ONE_PASS,
    requirements=(needs_activations, needs_density, needs_ranks),
    inspection=_density_layer,
)
async def ppl_md_method(context: Context) -> list[Value]:
    """Return the mean of both ranks of each candidate."""
    density = _density(context.options)
    if not density.has_ranks:
        raise EvidenceError("the density was fitted without perplexities; see fit_density")
    for one in context.candidates:
        refuse_grammar(one, "a rank among perplexities of texts without it")
    own = await context.of(embeddings)
    mean_nlls = [-float(one.trace.logprob.mean()) for one in context.candidates]
    rows = zip(own, mean_nlls, strict=True)
    return await asyncio.to_thread(values_of, density.ppl_md, rows)


async def sample_embeddings(context: Context) -> Singles:
    """Return [N, D]: the samples' hidden states at the last token that was read."""
    layer, compared = context.options.layer, await context.of(samples)
    index = {id(one): i for i, one in enumerate(context.candidates)}
    if all(id(one) in index for one in compared):
        every = await inspect_candidates(context, Inspection((layer,)))
        seen = [every[index[id(one)]] for one in compared]
    else:
        seen = await forward_pass(context, compared, Inspection((layer,)))
    return np.stack([sample_embedding(one.hidden[layer]) for one in seen])


@statistic("sample_embeddings", requirements=(needs_activations,))
async def _shared_sample_embeddings(context: Context) -> list[Singles]:
    return [await context.of(sample_embeddings)] * len(context.candidates)


def eigen_score(embeddings: Singles, alpha: float = 1e-3) -> float:
    """Return EigenScore, https://openreview.net/forum?id=Zj12nzlQbz, of N samples' [N, D].

    The mean log-eigenvalue of their covariance [N, N] plus `alpha` on its diagonal; in nats,
    higher where the samples differ more. Each embedding is centred on the mean of its own D
    numbers, not on the mean of the samples, so the score also grows with their length.

    Example:
        >>> round(eigen_score(np.eye(2, 4, dtype=np.float32)), 3)
        -0.345
    """
    compared = np.asarray(embeddings, np.float64)
    if compared.ndim != 2 or len(compared) < 2 or not np.isfinite(compared).all():
        raise ConfigurationError(
            "EigenScore needs finite embeddings [N, D] of two samples or more, "
            f"not {compared.shape}"
        )
    centred = compared - compared.mean(1, keepdims=True)
    covariance = centred @ centred.T + alpha * np.eye(len(compared))
    eigenvalues = np.linalg.eigvalsh(covariance)
    return float(np.log(np.where(eigenvalues > 0, eigenvalues, 1e-10)).mean())


@evidence_method(
    "EigenScore",
    alias="eigen_score",
    summary="Spread of the samples' hidden states: mean log eigenvalue of their covariance.",
    reference="https://arxiv.org/abs/2402.03744",
    category="hidden state",
    cost="samples, one pass of them",
    requirements=(needs_activations,),
    inspection=lambda options: Inspection((options.layer,)),
)
async def eigen_score_method(context: Context) -> list[Value]:
    """Return the score of all samples, the same for each candidate."""
    return [eigen_score(await context.of(sample_embeddings))] * len(context.candidates)


async def head_candidates(context: Context) -> list[Candidate]:
    """Return the candidates with as many top log-probabilities as the head reads."""
    candidates, count = context.candidates, _head(context.options).top_logprobs
    if not count:
        return list(candidates)
    traces = await top_traces(context, candidates, count)
    return [replace(one, trace=trace) for one, trace in zip(candidates, traces, strict=True)]


async def head_activations(context: Context) -> list[Activations]:
    """Return what the head reads of the model's inside, for each candidate."""
    return await inspect_candidates(context, _head(context.options).inspection)


def _head(options: MethodOptions) -> Head:
    if options.head is None:
        raise EvidenceError("no supervised head was fitted; see fit_head")
    return options.head


def _head_inspection(options: MethodOptions) -> Inspection | None:
    return options.head.inspection if options.head else None


@evidence_method(
    "UHead",
    alias="uhead",
    summary="A head fitted on hidden states: probability that the answer is wrong; 0 to 1.",
    reference="https://arxiv.org/abs/2505.08200",
    category="hidden state",
    range=(0.0, 1.0),
    cost=ONE_PASS,
    requirements=(needs_activations, needs_head),
    inspection=_head_inspection,
)
async def head_method(context: Context) -> list[Value]:
    """Return the head's probability for each candidate."""
    head = _head(context.options)
    candidates, seen = await asyncio.gather(
        context.of(head_candidates), context.of(head_activations)
    )
    return await asyncio.to_thread(values_of, head.doubt, zip(candidates, seen, strict=True))


@evidence_method(
    "UHeadClaim",
    alias="claim_uhead",
    summary="A pre-trained head on activations: probability that each claim is wrong; 0 to 1.",
    reference="https://aclanthology.org/2025.emnlp-main.1809",
    category="hidden state",
    level="claim",
    range=(0.0, 1.0),
    cost=ONE_PASS,
    requirements=(needs_activations, needs_claim_head),
    inspection=_head_inspection,
)
async def claim_head_method(context: Context) -> list[Value]:
    """Return the head's probability for each claim of each candidate."""
    head = _head(context.options)
    if not isinstance(head, ClaimHead):
        raise EvidenceError("the supervised head knows whole answers only; see LuhHead")
    candidates, seen, rows = await asyncio.gather(
        context.of(head_candidates), context.of(head_activations), context.of(claims)
    )
    claimed = [[claim.tokens for claim in row] for row in rows]

    def doubts(one: Candidate, seen: Activations, tokens: Sequence[Sequence[int]]) -> Floats:
        return head.doubts(one, seen, tokens) if tokens else np.empty(0)

    columns = zip(candidates, seen, claimed, strict=True)
    return await asyncio.to_thread(values_of, doubts, columns)


METHODS: tuple[Method, ...] = (
    mahalanobis_method,
    relative_mahalanobis_method,
    rde_method,
    ppl_md_method,
    eigen_score_method,
    head_method,
    claim_head_method,
)
