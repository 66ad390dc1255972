"""Methods that compare what samples of the same prompt mean, and the samples themselves.

Where a request has several candidates, they are the samples themselves; else `MethodOptions` says
how many more are generated, at which temperature.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from uq_llm_integrations.backends.row_checks import check_scored
from uq_llm_integrations.errors import EvidenceError
from uq_llm_integrations.methods.base import Method, evidence_method
from uq_llm_integrations.methods.context import Context
from uq_llm_integrations.methods.degenerate import checked_shares
from uq_llm_integrations.methods.entailment import Pairs
from uq_llm_integrations.methods.lexical import mean_rouge_l
from uq_llm_integrations.methods.polygraph import (
    needs_polygraph,
    polygraph_method,
    shared_statistic,
    statistic,
)
from uq_llm_integrations.methods.words import spaced
from uq_llm_integrations.records import Candidate, Floats

LABELS = "entail", "neutral", "contra"
"""The entailment labels, in the order of a judge's probabilities."""


async def samples(context: Context) -> list[Candidate]:
    """Return at least two samples: the candidates themselves, or new ones."""
    found = _usable(context.candidates)
    if len(context.candidates) < 2:
        sampling = {**context.request.sampling, "temperature": context.options.temperature}
        if sampling.get("seed") is not None:
            sampling["seed"] += 1
        request = replace(
            context.request, n=context.options.samples, sampling=sampling, early_stop=None
        )
        found = _usable(await context.backend.generate(request))
    check_scored([one for one in found if one.trace.damage])
    if len(found) < 2:
        raise EvidenceError("fewer than two samples have a text to compare")
    if any(one.trace.grammar != found[0].trace.grammar for one in (*context.candidates, *found)):
        raise EvidenceError(
            "the answer and the samples are of two distributions: only one of them is under the "
            "grammar"
        )
    return found


def _usable(candidates: Iterable[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.is_whole and one.text]


def _without_end(candidate: Candidate) -> slice:
    """Return where the tokens are that lm-polygraph counts: all but the end-of-text token."""
    ended = candidate.finish_reason == "stop" and candidate.stop_reason is None
    return slice(0, max(1, len(candidate.token_ids) - ended))


def sample_texts(found: Sequence[Candidate]) -> list[str]:
    """Return the samples' texts."""
    return [one.text for one in found]


def sample_tokens(found: Sequence[Candidate]) -> list[list[int]]:
    """Return the samples' tokens, as lm-polygraph counts them."""
    return [list(one.token_ids[_without_end(one)]) for one in found]


def sample_logprobs(found: Sequence[Candidate]) -> list[float]:
    """Return the samples' log-probabilities, in nats."""
    return [float(one.trace.logprob.sum()) for one in found]


def sample_token_logprobs(found: Sequence[Candidate]) -> list[Floats]:
    """Return [T] log-probabilities of each sample's tokens, in nats."""
    return [one.trace.logprob[_without_end(one)] for one in found]


shared_statistic("sample_texts", samples, sample_texts)
shared_statistic("spaced_texts", samples, lambda found: list(map(spaced, sample_texts(found))))
shared_statistic("sample_tokens", samples, sample_tokens)
shared_statistic("sample_log_probs", samples, sample_logprobs)
shared_statistic("sample_log_likelihoods", samples, sample_token_logprobs)


async def judged_entailments(context: Context, pairs: Pairs) -> Floats:
    """Return [pairs, 3] probabilities of `LABELS`: of the second text, given the first."""
    unique = sorted(set(pairs))
    question = await context.question()
    shares = await context.options.entailment.entailments(unique, question, context.backend)
    return in_order(checked_shares(shares, len(unique)), unique, pairs)


def in_order(values: Floats, unique: Pairs, pairs: Pairs) -> Floats:
    """Return the values of unique pairs for each of all pairs."""
    index = {pair: i for i, pair in enumerate(unique)}
    return np.asarray(values[[index[pair] for pair in pairs]])


async def sample_entailments(context: Context) -> Floats:
    """Return [N, N, 3] probabilities that samples follow from samples, the first text in rows."""
    texts = sample_texts(await context.of(samples))
    shares = await judged_entailments(context, list(product(texts, texts)))
    return shares.reshape(len(texts), len(texts), len(LABELS))


async def meanings(context: Context) -> list[list[int]]:
    """Return the samples by meaning; those mean the same that entail one another, or are equal."""
    follows = (await context.of(sample_entailments)).argmax(-1) == 0
    texts = np.array(sample_texts(await context.of(samples)))
    return meaning_classes(follows & follows.T | (texts[:, np.newaxis] == texts))


def meaning_classes(same: NDArray[np.bool_]) -> list[list[int]]:
    """Return the samples by meaning: each joins the first class whose first member means the same.

    `same` is [N, N]. The clustering of semantic entropy, https://arxiv.org/abs/2302.09664.
    """
    classes: list[list[int]] = []
    for sample in range(len(same)):
        known = next((one for one in classes if same[one[0], sample]), None)
        if known is None:
            classes.append([sample])
        else:
            known.append(sample)
    return classes


def _logits(shares: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.log(shares)


shared_statistic("semantic_matrix_entail", sample_entailments, lambda all_: all_[..., 0])
shared_statistic("semantic_matrix_contra", sample_entailments, lambda all_: all_[..., 2])
shared_statistic(
    "semantic_matrix_entail_logits", sample_entailments, lambda all_: _logits(all_[..., 0])
)
shared_statistic(
    "semantic_matrix_contra_logits", sample_entailments, lambda all_: _logits(all_[..., 2])
)
shared_statistic("semantic_classes_entail", meanings, lambda classes: classes)


async def candidate_entailments(context: Context) -> list[Floats]:
    """Return [N, 3] for each candidate: whether each sample follows from it, behind the prompt."""
    texts = sample_texts(await context.of(samples))
    question = await context.question()
    behind = [question + text for text in texts]
    pairs = list(product([question + one.text for one in context.candidates], behind))
    shares = await judged_entailments(context, pairs)
    return list(shares.reshape(len(context.candidates), len(texts), len(LABELS)))


@statistic("concat_greedy_semantic_matrix_contra_forward")
async def _candidate_contradictions(context: Context) -> list[Floats]:
    return [shares[:, 2] for shares in await context.of(candidate_entailments)]


@statistic("concat_greedy_semantic_matrix_neutral_forward")
async def _candidate_neutralities(context: Context) -> list[Floats]:
    return [shares[:, 1] for shares in await context.of(candidate_entailments)]


TUTORIAL = "https://arxiv.org/abs/2406.15627"
GRAPH = "https://arxiv.org/abs/2305.19187"
SEMANTIC = "https://arxiv.org/abs/2302.09664"
GAL = "https://aclanthology.org/2020.tacl-1.35"

PAIRS = "samples, entailment of each pair of samples"


@evidence_method(
    "LabelProb",
    alias="consistency",
    summary="Share of the samples outside the most frequent meaning; 0 to 1.",
    reference=TUTORIAL,
    range=(0, 1),
    category="sampling",
    cost=PAIRS,
    judged_by="entailment",
)
async def label_prob(context: Context) -> list[float]:
    classes = await context.of(meanings)
    largest = max(map(len, classes)) / sum(map(len, classes))
    return [1.0 - largest] * len(context.candidates)


@evidence_method(
    "SemanticEntropy",
    alias="semantic_entropy",
    summary="Entropy over meanings, each by its samples' share of their probability: samples that "
    "entail one another count as one; nats.",
    reference=SEMANTIC,
    range=(0, np.inf),
    category="sampling",
    cost=PAIRS,
    judged_by="entailment",
)
async def semantic_entropy(context: Context) -> list[float]:
    classes, found = await context.of(meanings), await context.of(samples)
    logprobs = np.array(sample_logprobs(found))
    with np.errstate(invalid="ignore"):  # what is not finite becomes a reason
        shares = logprobs - np.logaddexp.reduce(logprobs)
        surprises = [-len(one) * np.logaddexp.reduce(shares[one]) for one in classes]
        # By rounding, the share of all samples differs from 1.
        entropy = np.maximum(0.0, np.sum(surprises) / len(found)) * (len(classes) > 1)
    return [float(entropy)] * len(context.candidates)


@evidence_method(
    "SemanticEntropyEmpirical",
    alias="semantic_entropy_empirical",
    summary="SemanticEntropy with the share of the samples in place of their probability; nats.",
    reference="https://doi.org/10.1038/s41586-024-07421-0",
    range=(0, np.inf),
    category="sampling",
    cost=PAIRS,
    judged_by="entailment",
)
async def semantic_entropy_empirical(context: Context) -> list[float]:
    sizes = np.array([len(one) for one in await context.of(meanings)])
    shares = sizes / sizes.sum()
    return [float(np.sum(shares * -np.log(shares))) + 0.0] * len(context.candidates)


@evidence_method(
    "LexicalSimilarity",
    alias="lexical_similarity",
    summary="Negated mean ROUGE-L between the samples, by the words of any script; -1 to 0.",
    reference=GAL,
    range=(-1, 0),
    requirements=(needs_polygraph,),
    category="sampling",
    cost="samples",
)
async def lexical_similarity(context: Context) -> list[float]:
    texts = sample_texts(await context.of(samples))
    return [-await asyncio.to_thread(mean_rouge_l, texts)] * len(context.candidates)


METHODS: tuple[Method, ...] = (
    semantic_entropy,
    semantic_entropy_empirical,
    polygraph_method(
        "SemanticEntropyPolygraph", "SemanticEntropy",
        "sample_log_probs sample_texts semantic_classes_entail",
        alias="semantic_entropy_polygraph",
        summary="SemanticEntropy as lm-polygraph has it, with the samples' probabilities as they "
        "are: less the log of their sum; nats.",
        reference=SEMANTIC,
        category="sampling", cost=PAIRS, judged_by="entailment",
    ),
    lexical_similarity,
    polygraph_method(
        "NumSemSets", "NumSemSets",
        "semantic_matrix_entail semantic_matrix_contra sample_texts",
        alias="num_sem_sets",
        summary="Number of meanings among the samples.",
        reference=GRAPH, range=(1, np.inf),
        category="sampling", cost=PAIRS, judged_by="entailment",
    ),
    polygraph_method(
        "DegMat", "DegMat", "semantic_matrix_entail sample_texts",
        alias="deg_mat",
        summary="How little the samples entail one another, by their degrees in the graph; 0 to 1.",
        reference=GRAPH, range=(0, 1),
        category="sampling", cost=PAIRS, judged_by="entailment",
    ),
    polygraph_method(
        "DegMatJaccard", "DegMat", "sample_texts=spaced_texts",
        {"similarity_score": "Jaccard_score"},
        alias="deg_mat_jaccard",
        summary="The same with the share of common words in place of entailment; 0 to 1.",
        reference=GRAPH, range=(0, 1),
        category="sampling", cost="samples",
    ),
    polygraph_method(
        "Eccentricity", "Eccentricity", "semantic_matrix_entail sample_texts",
        alias="eccentricity",
        summary="Spread of the samples in the graph's spectral embedding.",
        reference=GRAPH, range=(0, np.inf),
        category="sampling", cost=PAIRS, judged_by="entailment",
    ),
    polygraph_method(
        "EccentricityJaccard", "Eccentricity", "sample_texts=spaced_texts",
        {"similarity_score": "Jaccard_score"},
        alias="eccentricity_jaccard",
        summary="The same with the share of common words in place of entailment.",
        reference=GRAPH, range=(0, np.inf),
        category="sampling", cost="samples",
    ),
    polygraph_method(
        "EigValLaplacian", "EigValLaplacian", "semantic_matrix_entail sample_texts",
        alias="eigval_laplacian",
        summary="A continuous number of meanings, from the eigenvalues of the graph's Laplacian.",
        reference=GRAPH, range=(0, np.inf),
        category="sampling", cost=PAIRS, judged_by="entailment",
    ),
    polygraph_method(
        "EigValLaplacianJaccard", "EigValLaplacian", "sample_texts=spaced_texts",
        {"similarity_score": "Jaccard_score"},
        alias="eigval_laplacian_jaccard",
        summary="The same with the share of common words in place of entailment.",
        reference=GRAPH, range=(0, np.inf),
        category="sampling", cost="samples",
    ),
    label_prob,
    polygraph_method(
        "KernelLanguageEntropy", "KernelLanguageEntropy",
        "semantic_matrix_entail semantic_matrix_contra",
        alias="kernel_language_entropy",
        summary="Von Neumann entropy of a heat kernel over the samples' meanings.",
        reference="https://arxiv.org/abs/2405.20003", range=(0, np.inf),
        category="sampling", cost=PAIRS, judged_by="entailment",
    ),
    polygraph_method(
        "LUQ", "LUQ", "semantic_matrix_entail_logits semantic_matrix_contra_logits",
        alias="luq",
        summary="How little the samples support one another; 0 to 1.",
        reference="https://arxiv.org/abs/2403.20279", range=(0, 1),
        category="sampling", cost=PAIRS, judged_by="entailment",
    ),
    polygraph_method(
        "SemanticDensity", "SemanticDensity",
        "sample_log_probs sample_tokens sample_texts concat_greedy_semantic_matrix_contra_forward "
        "concat_greedy_semantic_matrix_neutral_forward",
        alias="semantic_density",
        summary="Negated share of the samples' probability that means what the answer means; "
        "-1 to 0.",
        reference="https://arxiv.org/abs/2405.13845", category="sampling", range=(-1, 0),
        cost="samples, entailment of each sample by the answer", judged_by="entailment",
    ),
)  # fmt: skip  # a table, one method a block
