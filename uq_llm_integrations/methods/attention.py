"""Methods that read attention: RAUQ, AttentionScore and CSL, from bands of the maps.

They give what lm-polygraph's estimators give for whole maps. L blocks with H heads each, S tokens
of prompt and answer, of which the last T are the answer's, its stop token included. All scores
are higher where the model is less certain.
"""

import asyncio
import math
from collections.abc import Sequence

import numpy as np

from uq_llm_integrations.errors import ConfigurationError, EvidenceError, MethodUnavailableError
from uq_llm_integrations.methods.base import (
    Method,
    Value,
    evidence_method,
    needs_activations,
    values_of,
)
from uq_llm_integrations.methods.claims import claims
from uq_llm_integrations.methods.context import ONE_PASS, Context, inspect_candidates
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.records import Activations, Floats, Inspection, Singles, TokenTrace

BEFORE_ANSWER = (
    "Read the following question with optional context and decide if the answer correctly "
    "answer the question. Focus on the answer, and reply Y or N.\n"
    "            Context: Luxor International Airport is a airport near Luxor in Egypt (EG). "
    "It is 353 km away from the nearest seaport (Duba). The offical IATA for this airport is "
    "LXR.\n"
    "            Question: Luxor international airport is in which country?\n"
    "            Answer: It is in the United States, and its IATA is LXR.\n"
    "            Decision: N. (The airport is in Egypt, not the United States.)\n"
    "\n"
    "            Context: Harry is a good witcher.\n"
    "            Question: How old is Harry?\n"
    "            Answer: Harry practices witchcraft.\n"
    "            Decision: N. (The answer does not mention Harry's age.)\n"
    "\n"
    "            Question: What is the capital of Kenya?\n"
    "            Answer: Nairobi is the capital of Kenya.\n"
    "            Decision: Y.\n"
    "\n"
    "            Question: Who has won the most Premier League titles since 2015?\n"
    "            Answer: Manchester City have win the most Premier League title after 2015.\n"
    "            Decision: Y. (Grammar errors are ignored.)\n"
    "\n"
    "            Question: {q}\n"
    "            Answer: "
)
"""lm-polygraph's text, to the letter, before the answer that CSL has judged."""

AFTER_ANSWER = "\n\nDecision:"


def _bands(options: MethodOptions) -> Inspection:
    return Inspection(attention="bands")


async def attention_self(context: Context) -> list[Singles]:
    """Return [L, H, S] for each candidate: what each token attends to itself."""
    seen = await inspect_candidates(context, _bands(context.options))
    return [_diagonal(one) for one in seen]


def _diagonal(seen: Activations) -> Singles:
    if seen.attention_maps is not None:
        return np.asarray(seen.attention_maps.diagonal(axis1=2, axis2=3))
    if seen.attention_self is None:
        raise EvidenceError("the backend returned no attention")
    return seen.attention_self


def rauq(
    trace: TokenTrace,
    attention_self: Singles,
    prompt_tokens: int,
    alpha: float | None = None,
    use_entropy: bool = False,
) -> float:
    """Return RAUQ, https://arxiv.org/abs/2505.20045, in nats (plus 1, as lm-polygraph has it).

    A token's confidence is `alpha` times its probability plus (1 - alpha) times the confidence of
    the token before, weighted by attention. The score is one minus the mean log-confidence, in
    the most uncertain block of the middle third, each with the head that attends most.

    Here as in lm-polygraph the weight is what the token before attends to itself (`attention_self`
    [L, H, S] at indices P to S - 2), since that is what the model computes in the step that gives
    the token. The paper's text has the token's own attention to the one before. `alpha` is 0.2
    unless given, and 0.8 with `use_entropy`; for models tuned to follow instructions lm-polygraph
    recommends 0.5 and 0.9. With `use_entropy`, log V minus the entropy takes the probability's
    place, so that the score can be negative.

    Example:
        >>> trace = TokenTrace(50, np.log([0.5, 0.5]))
        >>> round(rauq(trace, np.full((3, 1, 4), 0.5, np.float32), prompt_tokens=2), 3)
        1.949
    """
    layers, _, length = attention_self.shape
    if not len(trace) or length != prompt_tokens + len(trace):
        raise ConfigurationError(
            f"RAUQ needs the attention of {prompt_tokens} prompt tokens and at least one of the "
            f"answer's; the trace has {len(trace)} tokens and the attention {length}"
        )
    alpha = (0.8 if use_entropy else 0.2) if alpha is None else alpha
    if not 0.0 <= alpha <= 1.0:
        raise ConfigurationError(f"RAUQ's alpha must be from 0 to 1, not {alpha}")
    weights = attention_self[_middle_third(layers), :, prompt_tokens:-1].astype(np.float64)
    heads = weights.sum(-1).argmax(-1)
    weights = weights[np.arange(len(weights)), heads]
    log_values = _log_entropy_gap(trace) if use_entropy else trace.logprob
    log_confidence = _log_confidence(log_values, weights, alpha)
    return float((1.0 - log_confidence.mean(-1)).max())


def _middle_third(layers: int) -> slice:
    """Return RAUQ's blocks; lm-polygraph runs past the end of a model with one or two."""
    return slice(layers // 3, min(math.ceil(layers / 3 * 2) + 1, layers))


def _log_entropy_gap(trace: TokenTrace) -> Floats:
    if trace.entropy is None:
        raise MethodUnavailableError(f"RAUQ with entropy needs it exact: {trace.why_inexact}")
    gap = math.log(trace.vocabulary_size) - trace.entropy
    return np.asarray(np.log(np.maximum(gap, 0.0) + 1e-10))


def _log_confidence(log_values: Floats, weights: Floats, alpha: float) -> Floats:
    """Return [blocks, T] log-confidences from [T] log-probabilities and [blocks, T - 1] weights.

    In logarithms, since the probabilities themselves can be too small for a float.
    """
    with np.errstate(divide="ignore"):
        own = np.log(alpha) + log_values
        carried = np.log(1.0 - alpha) + np.log(weights)
    log_confidence = np.empty((len(weights), len(log_values)))
    log_confidence[:, 0] = log_values[0]
    for j in range(1, len(log_values)):
        before = carried[:, j - 1] + log_confidence[:, j - 1]
        log_confidence[:, j] = np.logaddexp(own[j], before)
    return log_confidence


@evidence_method(
    "RAUQ",
    alias="rauq",
    summary="Probabilities carried on from token to token by the most attentive heads; nats.",
    reference="https://arxiv.org/abs/2505.20045",
    category="attention",
    range=(1.0, math.inf),
    cost=ONE_PASS,
    requirements=(needs_activations,),
    inspection=_bands,
)
async def rauq_method(context: Context) -> list[Value]:
    """Return RAUQ of each candidate."""
    traces = [one.trace for one in context.candidates]
    lengths = [len(one.prompt_ids) for one in context.candidates]
    return values_of(rauq, zip(traces, await context.of(attention_self), lengths, strict=True))


def attention_score(attention_self: Singles, layer: int | None = None) -> float:
    """Return AttentionScore, https://openreview.net/forum?id=LYx4w3CAgy, in nats.

    The negated sum over tokens of the log of what each attends to itself (`attention_self`
    [L, H, S], indices 0 to S - 1, the prompt's too), a mean over the heads of block `layer`, which
    counts from 0 and is the middle one, L // 2, unless given. It grows with the prompt's length;
    lm-polygraph's `gen_only` is the same of `attention_self[:, :, P:-1]`.

    Example:
        >>> round(attention_score(np.full((2, 1, 3), 0.5, np.float32)), 3)
        2.079
    """
    layer = len(attention_self) // 2 if layer is None else layer
    logs = np.log(attention_self[layer].astype(np.float64) + 1e-12)
    return -float(logs.sum(-1).mean())


@evidence_method(
    "AttentionScore",
    alias="attention_score",
    summary="Negated sum of each token's log attention to itself, mean of a middle layer's heads.",
    reference="https://openreview.net/forum?id=LYx4w3CAgy",
    category="attention",
    range=(0.0, math.inf),
    cost=ONE_PASS,
    requirements=(needs_activations,),
    inspection=_bands,
)
async def attention_score_method(context: Context) -> list[Value]:
    """Return AttentionScore of each candidate."""
    return values_of(attention_score, zip(await context.of(attention_self), strict=True))


def claim_attention_scores(
    attention_self: Singles, claims: Sequence[Sequence[int]], layer: int | None = None
) -> Floats:
    """Return AttentionScore of each claim, given the indices of its tokens in the answer.

    `attention_self` is [L, H, T], of the answer's tokens alone. As lm-polygraph has it for claims,
    nothing keeps the logarithm from an attention of 0, which gives infinity.
    """
    layer = len(attention_self) // 2 if layer is None else layer
    with np.errstate(divide="ignore"):
        logs = np.log(attention_self[layer].astype(np.float64)).mean(0)
    return np.array([-logs[list(indices)].sum() for indices in claims])


@evidence_method(
    "AttentionScoreClaim",
    alias="claim_attention_score",
    summary="AttentionScore of each claim's tokens.",
    reference="https://openreview.net/forum?id=LYx4w3CAgy",
    category="attention",
    level="claim",
    range=(0.0, math.inf),
    cost=ONE_PASS,
    requirements=(needs_activations,),
    inspection=_bands,
)
async def claim_attention_score_method(context: Context) -> list[Value]:
    """Return AttentionScore of each claim of each candidate."""
    attention, rows = await asyncio.gather(context.of(attention_self), context.of(claims))
    of_answers = [
        whole[..., len(one.prompt_ids) :]
        for whole, one in zip(attention, context.candidates, strict=True)
    ]
    claimed = [[claim.tokens for claim in row] for row in rows]
    return values_of(claim_attention_scores, zip(of_answers, claimed, strict=True))


def eliciting_prompt(question: str) -> tuple[str, str]:
    """Return the texts around the answer in the input that CSL reads the attention from.

    `question` is the prompt's text. The model sees the first text, encoded with special tokens, the
    answer's token ids as they were generated, and the second text, encoded without. CSL reads what
    the very last token attends to the answer's.

    lm-polygraph looks for the answer's ids from the end, so it takes an index in the second text
    for an answer whose ids occur there; here the answer's indices are counted, not looked for.
    """
    return BEFORE_ANSWER.format(q=question), AFTER_ANSWER


async def eliciting_attention(context: Context) -> list[Singles]:
    """Return [L, H, T] for each candidate: what the end of CSL's prompt attends to its tokens."""
    before, after = eliciting_prompt(await context.question())
    head = await context.backend.encode(before)
    tail = await context.backend.encode_continuation(after)
    texts = [head + one.token_ids + tail for one in context.candidates]
    rows = []
    for one, candidate in zip(
        await context.backend.inspect_all(texts, _bands(context.options)),
        context.candidates,
        strict=True,
    ):
        if one.attention_last is None:
            raise EvidenceError("the backend returned no attention")
        rows.append(one.attention_last[..., len(head) : len(head) + len(candidate.token_ids)])
    return rows


def csl(logprob: Floats, attention_last_to_answer: Singles) -> float:
    """Return CSL, https://aclanthology.org/2024.emnlp-main.578, in nats.

    The negated mean of the answer's log-probabilities [T], weighted by what the last token of the
    eliciting prompt attends to each of the answer's ([L, H, T]). As in lm-polygraph that is the
    mean of all heads, where the paper chooses the ten best on labelled questions.

    Example:
        >>> csl(np.array([-1.0, -3.0]), np.ones((2, 2, 2), np.float32))
        2.0
    """
    if not len(logprob) or attention_last_to_answer.shape[2] != len(logprob):
        raise ConfigurationError(
            f"CSL needs one attention for each token of the answer, and at least one token; there "
            f"are {len(logprob)} tokens and {attention_last_to_answer.shape[2]} attentions"
        )
    weights = attention_last_to_answer.mean((0, 1), dtype=np.float64)
    return -float((logprob * weights).sum() / weights.sum())


@evidence_method(
    "CSL",
    alias="csl",
    summary="Negative log-probability, weighed by the attention of a prompt for a verdict; nats.",
    reference="https://aclanthology.org/2024.emnlp-main.578",
    category="attention",
    range=(0.0, math.inf),
    cost="one pass of another prompt",
    requirements=(needs_activations,),
)
async def csl_method(context: Context) -> list[Value]:
    """Return CSL of each candidate."""
    logprobs = [one.trace.logprob for one in context.candidates]
    return values_of(csl, zip(logprobs, await context.of(eliciting_attention), strict=True))


METHODS: tuple[Method, ...] = (
    attention_score_method,
    rauq_method,
    csl_method,
    claim_attention_score_method,
)
