"""Samples of the same prompt, and what they say of one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from uq_llm_integrations.methods.context import EvidenceError, Gathering, provides
from uq_llm_integrations.methods.entailment import Pairs
from uq_llm_integrations.methods.wishes import Asking, Decode, Generate
from uq_llm_integrations.records import Candidate, Floats

VERDICTS = "entail", "neutral", "contra"
"""What a text can be to another, in the order of an entailment's probabilities."""


@provides("samples")
def samples(gathering: Gathering) -> Asking[list[Any]]:
    """Return at least two samples: the candidates themselves, or new ones."""
    drawn = _usable(gathering.candidates)
    if len(gathering.candidates) < 2:
        method_options, request = gathering.method_options, gathering.request
        sampling = {**request.sampling, "temperature": method_options.temperature}
        if sampling.get("seed") is not None:
            sampling["seed"] += 1
        asked = replace(request, n=method_options.samples, sampling=sampling, early_stop=None)
        drawn = _usable((yield Generate(asked)))
    if len(drawn) < 2:
        raise EvidenceError("fewer than two samples have a text to compare")
    return gathering.for_each(drawn)


def _usable(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.is_whole and one.text]


def _without_end(candidate: Candidate) -> slice:
    """Return where the tokens are that lm-polygraph counts: all but the end-of-text token."""
    ended = candidate.finish_reason == "stop" and candidate.stop_reason is None
    return slice(0, max(1, len(candidate.token_ids) - ended))


@provides("sample_texts", "sample_tokens", "sample_log_probs", "sample_log_likelihoods")
def sample_statistics(gathering: Gathering) -> Asking[list[Any]]:
    """Return what the samples are: texts, tokens, log-probabilities in all and of each token."""
    drawn: list[Candidate] = yield from gathering.one("samples")
    parts = [_without_end(one) for one in drawn]
    each = list(zip(drawn, parts, strict=True))
    return gathering.for_each(
        {
            "sample_texts": [one.text for one in drawn],
            "sample_tokens": [list(one.token_ids[part]) for one, part in each],
            "sample_log_probs": [float(one.trace.logprob.sum()) for one in drawn],
            "sample_log_likelihoods": [one.trace.logprob[part] for one, part in each],
        }
    )


@provides(
    "semantic_matrix_entail",
    "semantic_matrix_contra",
    "semantic_matrix_entail_logits",
    "semantic_matrix_contra_logits",
    "semantic_classes_entail",
)
def sample_entailments(gathering: Gathering) -> Asking[list[Any]]:
    """Return which samples follow from which: [N, N], the first text in rows."""
    texts: list[str] = yield from gathering.one("sample_texts")
    shares = yield from entailments(gathering, list(product(texts, texts)))
    matrix = shares.reshape(len(texts), len(texts), 3)
    with np.errstate(divide="ignore"):
        logits = np.log(matrix)
    follows = matrix.argmax(-1) == 0
    return gathering.for_each(
        {
            "semantic_matrix_entail": matrix[..., 0],
            "semantic_matrix_contra": matrix[..., 2],
            "semantic_matrix_entail_logits": logits[..., 0],
            "semantic_matrix_contra_logits": logits[..., 2],
            "semantic_classes_entail": meaning_classes(follows & follows.T),
        }
    )


def meaning_classes(same: np.ndarray[Any, Any]) -> list[list[int]]:
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


@provides(
    "concat_greedy_semantic_matrix_contra_forward",
    "concat_greedy_semantic_matrix_neutral_forward",
)
def candidate_entailments(gathering: Gathering) -> Asking[list[Any]]:
    """Return [N] for each candidate: whether each sample follows from it, behind the prompt."""
    texts: list[str] = yield from gathering.one("sample_texts")
    question = yield from gathering.question()
    behind = [question + text for text in texts]
    pairs = list(product([question + one.text for one in gathering.candidates], behind))
    shares = yield from entailments(gathering, pairs)
    return [
        {
            "concat_greedy_semantic_matrix_contra_forward": rows[:, 2],
            "concat_greedy_semantic_matrix_neutral_forward": rows[:, 1],
        }
        for rows in shares.reshape(len(gathering.candidates), len(texts), 3)
    ]


@provides("sample_sentence_similarity")
def sample_similarities(gathering: Gathering) -> Asking[list[Any]]:
    """Return how alike the samples are: [N, N]."""
    texts: list[str] = yield from gathering.one("sample_texts")
    alike = yield from _similarities(gathering, list(product(texts, texts)))
    return gathering.for_each(alike.reshape(len(texts), len(texts)))


@provides("greedy_sentence_similarity")
def candidate_similarities(gathering: Gathering) -> Asking[list[Any]]:
    """Return [N] for each candidate: how alike each sample is to it, mean of both directions."""
    texts: list[str] = yield from gathering.one("sample_texts")
    pairs = list(product([one.text for one in gathering.candidates], texts))
    there = yield from _similarities(gathering, pairs)
    back = yield from _similarities(gathering, [(b, a) for a, b in pairs])
    return list(((there + back) / 2).reshape(len(gathering.candidates), len(texts)))


@provides("token_similarity")
def token_similarities(gathering: Gathering) -> Asking[list[Any]]:
    """Return [T] for each candidate: how alike the text is to itself without each token."""
    rows = []
    for one in gathering.candidates:
        rows.append((yield from _without_each(gathering, one.token_ids)))
    return rows


@provides("sample_token_similarity")
def sample_token_similarities(gathering: Gathering) -> Asking[list[Any]]:
    """Return the same of each sample."""
    rows = []
    for ids in (yield from gathering.one("sample_tokens")):
        rows.append((yield from _without_each(gathering, ids)))
    return gathering.for_each(rows)


def _without_each(gathering: Gathering, ids: Sequence[int]) -> Asking[Floats]:
    if len(ids) < 2:
        return np.full(len(ids), 0.5)  # lm-polygraph's value where nothing would be left
    question = yield from gathering.question()
    whole = f"{question} {yield Decode(tuple(ids))}"
    pairs = []
    for place in range(len(ids)):
        rest = yield Decode((*ids[:place], *ids[place + 1 :]))
        pairs.append((whole, f"{question} {rest}"))
    return (yield from _similarities(gathering, pairs))


def entailments(gathering: Gathering, pairs: Pairs) -> Asking[Floats]:
    """Return [pairs, 3] probabilities of `VERDICTS`: of the second text, given the first."""
    question, entailment = (yield from gathering.question()), gathering.method_options.entailment
    unique = sorted(set(pairs))
    shares = yield from entailment.entailments(unique, question)
    places = {pair: place for place, pair in enumerate(unique)}
    return np.asarray(shares[[places[pair] for pair in pairs]])


def _similarities(gathering: Gathering, pairs: Pairs) -> Asking[Floats]:
    question, similarity = (yield from gathering.question()), gathering.method_options.similarity
    unique = sorted(set(pairs))
    alike = yield from similarity.similarities(unique, question)
    places = {pair: place for place, pair in enumerate(unique)}
    return np.asarray(alike[[places[pair] for pair in pairs]])
