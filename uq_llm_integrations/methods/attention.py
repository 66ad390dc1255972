"""Methods that read attention: RAUQ, AttentionScore and CSL, from bands of the maps.

They give what lm-polygraph's estimators give for whole maps. L blocks with H heads each, S tokens
of prompt and answer, of which the last T are the answer's, its stop token included. All scores
are higher where the model is less certain.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from functools import cache

import numpy as np

from uq_llm_integrations.errors import ConfigurationError, MethodUnavailableError
from uq_llm_integrations.methods.polygraph import package_folder
from uq_llm_integrations.records import Floats, Singles, TokenTrace

_ELICITING_PROMPT = "stat_calculators/attention_eliciting_prompt.py"


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
    [L, H, S] at places P to S - 2), since that is what the model computes in the step that gives
    the token. The paper's text has the token's own attention to the one before. `alpha` is 0.2
    unless given, and 0.8 with `use_entropy`; for models tuned to follow instructions lm-polygraph
    recommends 0.5 and 0.9. With `use_entropy`, log V minus the entropy takes the probability's
    place, so that the score can be negative.
    """
    layers, _, places = attention_self.shape
    if not len(trace) or places != prompt_tokens + len(trace):
        raise ConfigurationError(
            f"RAUQ needs the attention of {prompt_tokens} prompt tokens and at least one of the "
            f"answer's; the trace has {len(trace)} tokens and the attention {places} places"
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


def attention_score(attention_self: Singles, layer: int | None = None) -> float:
    """Return AttentionScore, https://openreview.net/forum?id=LYx4w3CAgy, in nats.

    The negated sum over tokens of the log of what each attends to itself (`attention_self`
    [L, H, S], places 0 to S - 1, the prompt's too), a mean over the heads of block `layer`, which
    counts from 0 and is the middle one, L // 2, unless given. It grows with the prompt's length;
    lm-polygraph's `gen_only` is the same of `attention_self[:, :, P:-1]`.
    """
    layer = len(attention_self) // 2 if layer is None else layer
    logs = np.log(attention_self[layer].astype(np.float64) + 1e-12)
    return -float(logs.sum(-1).mean())


def claim_attention_scores(
    attention_self: Singles, claims: Sequence[Sequence[int]], layer: int | None = None
) -> Floats:
    """Return AttentionScore of each claim, given the places of its tokens in the answer.

    `attention_self` is [L, H, T], of the answer's tokens alone. As lm-polygraph has it for claims,
    nothing keeps the logarithm from an attention of 0, which gives infinity.
    """
    layer = len(attention_self) // 2 if layer is None else layer
    with np.errstate(divide="ignore"):
        logs = np.log(attention_self[layer].astype(np.float64)).mean(0)
    return np.array([-logs[list(places)].sum() for places in claims])


def csl(logprob: Floats, attention_last_to_answer: Singles) -> float:
    """Return CSL, https://aclanthology.org/2024.emnlp-main.578, in nats.

    The negated mean of the answer's log-probabilities [T], weighted by what the last token of the
    eliciting prompt attends to each of the answer's ([L, H, T]). As in lm-polygraph that is the
    mean of all heads, where the paper chooses the ten best on labelled questions.
    """
    if not len(logprob) or attention_last_to_answer.shape[2] != len(logprob):
        raise ConfigurationError(
            f"CSL needs one attention for each token of the answer, and at least one token; there "
            f"are {len(logprob)} tokens and {attention_last_to_answer.shape[2]} attentions"
        )
    weights = attention_last_to_answer.mean((0, 1), dtype=np.float64)
    return -float((logprob * weights).sum() / weights.sum())


def eliciting_prompt(question: str) -> tuple[str, str]:
    """Return the texts around the answer in the input that CSL reads the attention from.

    `question` is the text that the model was asked with. The model sees the first text, encoded
    with special tokens, the answer's token ids as they were generated, and the second text,
    encoded without. CSL reads what the very last token attends to the answer's.

    lm-polygraph looks for the answer's ids from the end, so it takes a place in the second text
    for an answer whose ids occur there; here the answer's place is to be counted, not looked for.
    """
    before, after = _eliciting_texts()
    return before.format(q=question), after


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


@cache
def _eliciting_texts() -> tuple[str, str]:
    """Read the two texts out of lm-polygraph's file, which is too slow to import."""
    source = (package_folder() / _ELICITING_PROMPT).read_text("utf-8")
    calls = (
        node
        for kind in ast.parse(source).body
        if isinstance(kind, ast.ClassDef) and kind.name == "AttentionElicitingPromptCalculator"
        for node in ast.walk(kind)
        if isinstance(node, ast.Call) and len(node.args) >= 2
    )
    before, after = (ast.literal_eval(argument) for argument in next(calls).args[:2])
    return before, after
