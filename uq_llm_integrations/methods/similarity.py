"""Methods that weigh samples, or tokens, by how alike the texts are: the SAR and CoCoA families."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from uq_llm_integrations.backends.event_loop import together
from uq_llm_integrations.methods.base import Method, evidence_method, needs_exact_statistics
from uq_llm_integrations.methods.context import Context
from uq_llm_integrations.methods.degenerate import checked_judgements
from uq_llm_integrations.methods.entailment import Pairs
from uq_llm_integrations.methods.logprob import entropies
from uq_llm_integrations.methods.polygraph import polygraph_method, shared_statistic, statistic
from uq_llm_integrations.methods.sampling import in_order, sample_texts, sample_tokens, samples
from uq_llm_integrations.records import Floats

SAR = "https://arxiv.org/abs/2307.01379"
COCOA = "https://arxiv.org/abs/2502.04964"

ALIKE = "samples, similarity of each sample to the answer"


async def judged_similarities(context: Context, pairs: Pairs) -> Floats:
    """Return [pairs] similarities from 0 to 1."""
    unique = sorted(set(pairs))
    question = await context.question()
    alike = await context.options.similarity.similarities(unique, question, context.backend)
    checked = checked_judgements(alike, (len(unique),), "similarity")
    return in_order(checked, unique, pairs)


async def sample_similarities(context: Context) -> Floats:
    """Return [N, N] how alike the samples are."""
    texts = sample_texts(await context.of(samples))
    alike = await judged_similarities(context, list(product(texts, texts)))
    return alike.reshape(len(texts), len(texts))


shared_statistic("sample_sentence_similarity", sample_similarities, lambda alike: alike)


@statistic("greedy_sentence_similarity")
async def candidate_similarities(context: Context) -> list[Floats]:
    """Return [N] for each candidate: how alike each sample is to it, mean of both directions."""
    texts = sample_texts(await context.of(samples))
    pairs = list(product([one.text for one in context.candidates], texts))
    both = [*pairs, *((b, a) for a, b in pairs)]
    alike = (await judged_similarities(context, both)).reshape(2, len(context.candidates), -1)
    return list(alike.mean(0))


@statistic("token_similarity")
async def token_similarities(context: Context) -> list[Floats]:
    """Return [T] for each candidate: how alike the text is to itself without each token.

    Without a special token it is the same, so that the SAR family gives those no weight.
    """
    return await together([_without_each(context, one.token_ids) for one in context.candidates])


async def sample_token_similarities(context: Context) -> list[Floats]:
    """Return the same of each sample."""
    tokens = sample_tokens(await context.of(samples))
    return await together([_without_each(context, ids) for ids in tokens])


shared_statistic("sample_token_similarity", sample_token_similarities, lambda rows: rows)


async def _without_each(context: Context, ids: Sequence[int]) -> Floats:
    if len(ids) < 2:
        return np.full(len(ids), 0.5)  # lm-polygraph's value where nothing would be left
    added, question = await context.of(_added_tokens), await context.question()
    alike = np.ones(len(ids))
    said = [index for index, token in enumerate(ids) if token not in added]
    shorter = [(*ids[:index], *ids[index + 1 :]) for index in said]
    whole, *rests = await together([context.backend.decode(one) for one in (ids, *shorter)])
    pairs = [(f"{question} {whole}", f"{question} {rest}") for rest in rests]
    if pairs:
        alike[said] = await judged_similarities(context, pairs)
    return alike


async def _added_tokens(context: Context) -> frozenset[int]:
    """Return the tokens that say nothing themselves, as lm-polygraph counts them.

    They are all that were added to the tokenizer's vocabulary, the special ones among them.
    """
    tokenizer = await context.backend.tokenizer()
    special = getattr(tokenizer, "all_special_ids", ())  # all that some tokenizers tell
    return frozenset(special).union(getattr(tokenizer, "added_tokens_decoder", ()))


async def _dissimilar(context: Context) -> list[float]:
    """Return each candidate's mean dissimilarity to the samples, 0 to 1."""
    return [float(np.mean(1 - alike)) for alike in await context.of(candidate_similarities)]


@evidence_method(
    "CocoaMSP",
    alias="cocoa_msp",
    summary="Negative log-probability times the mean dissimilarity of the samples; nats.",
    reference=COCOA,
    range=(0, np.inf),
    category="sampling",
    cost=ALIKE,
    judged_by="similarity",
)
async def cocoa_msp(context: Context) -> list[float]:
    pairs = zip(context.candidates, await context.of(_dissimilar), strict=True)
    return [-float(one.trace.logprob.sum()) * dissimilar for one, dissimilar in pairs]


@evidence_method(
    "CocoaPPL",
    alias="cocoa_ppl",
    summary="Mean negative log-probability times the mean dissimilarity of the samples; nats.",
    reference=COCOA,
    range=(0, np.inf),
    category="sampling",
    cost=ALIKE,
    judged_by="similarity",
)
async def cocoa_ppl(context: Context) -> list[float]:
    pairs = zip(context.candidates, await context.of(_dissimilar), strict=True)
    return [-float(one.trace.logprob.mean()) * dissimilar for one, dissimilar in pairs]


@evidence_method(
    "CocoaMTE",
    alias="cocoa_mte",
    summary="Mean entropy times the mean dissimilarity of the samples; nats.",
    reference=COCOA,
    range=(0, np.inf),
    requirements=(needs_exact_statistics,),
    category="sampling",
    cost=ALIKE,
    judged_by="similarity",
)
async def cocoa_mte(context: Context) -> list[float]:
    pairs = zip(await context.of(entropies), await context.of(_dissimilar), strict=True)
    return [float(entropy.mean()) * dissimilar for entropy, dissimilar in pairs]


METHODS: tuple[Method, ...] = (
    polygraph_method(
        "TokenSAR", "TokenSAR", "token_similarity",
        alias="token_sar",
        summary="Negative log-probability, each token weighed by what the text loses without it; "
        "nats.",
        reference=SAR, category="sampling", range=(0, np.inf),
        cost="similarity for each token", judged_by="similarity",
    ),
    polygraph_method(
        "SentenceSAR", "SentenceSAR", "sample_sentence_similarity sample_log_probs",
        alias="sentence_sar",
        summary="Negative log of the samples' probabilities, raised by that of similar ones; nats.",
        reference=SAR, category="sampling",
        cost="samples, similarity of each pair of samples", judged_by="similarity",
    ),
    polygraph_method(
        "SAR", "SAR",
        "sample_sentence_similarity sample_log_likelihoods sample_token_similarity",
        alias="sar",
        summary="Both: similar samples, and tokens weighed by what they matter; nats.",
        reference=SAR, category="sampling", judged_by="similarity",
        cost="samples, similarity of each pair of samples and for each token of each",
    ),
    cocoa_msp,
    cocoa_ppl,
    cocoa_mte,
)  # fmt: skip  # a table, one method a block
