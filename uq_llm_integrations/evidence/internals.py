"""Hidden states and attention, from one pass of each candidate through the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from uq_llm_integrations.evidence.gathering import EvidenceError, Gathering, provides
from uq_llm_integrations.evidence.wishes import Asking, Encode, Inspect
from uq_llm_integrations.records import Candidate, Inspection, Internals, Layer, Singles
from uq_llm_integrations.scoring.attention import eliciting_prompt
from uq_llm_integrations.scoring.embeddings import mean_embedding, sample_embedding


@provides("attention_self")
def attention_self(gathering: Gathering) -> Asking[list[Any]]:
    """Return [L, H, S] for each candidate: what each token attends to itself."""
    texts = tuple(one.prompt_ids + one.token_ids for one in gathering.candidates)
    seen: list[Internals] = yield Inspect(texts, Inspection(attention="bands"))
    return [one.attention_self for one in seen]


@provides("attention_weights_eliciting_prompt")
def eliciting_attention(gathering: Gathering) -> Asking[list[Any]]:
    """Return [L, H, T] for each candidate: what a prompt for a verdict attends to its tokens."""
    question = yield from gathering.question()
    before, after = eliciting_prompt(question)
    head, tail = (yield Encode(before)), (yield Encode(after, follows=True))
    texts = tuple(head + one.token_ids + tail for one in gathering.candidates)
    seen: list[Internals] = yield Inspect(texts, Inspection(attention="bands"))
    rows = []
    for one, candidate in zip(seen, gathering.candidates, strict=True):
        assert one.attention_last is not None
        rows.append(one.attention_last[..., len(head) : len(head) + len(candidate.token_ids)])
    return rows


@provides("embeddings_decoder")
def embeddings(gathering: Gathering) -> Asking[list[Any]]:
    """Return [D] for each candidate: its mean hidden state at the layer of the density fit."""
    fitted = gathering.assessment.density
    if fitted is None:
        raise EvidenceError("no density was fitted; see fit_density")
    return (yield from candidate_embeddings(gathering.candidates, fitted.layer))


@provides("background")
def background(gathering: Gathering) -> Asking[list[Any]]:
    """Make sure that texts of any kind were fitted, too."""
    yield from ()
    fitted = gathering.assessment.density
    if fitted is None or not fitted.has_background:
        raise EvidenceError("the density was fitted without a background; see fit_density")
    return gathering.for_each(True)


@provides("head_embedding")
def head_embeddings(gathering: Gathering) -> Asking[list[Any]]:
    """Return [D] for each candidate: its mean hidden state at the layer of the supervised head."""
    head = gathering.assessment.head
    if head is None:
        raise EvidenceError("no supervised head was fitted; see fit_head")
    return (yield from candidate_embeddings(gathering.candidates, head.layer))


@provides("sample_embeddings")
def sample_embeddings(gathering: Gathering) -> Asking[list[Any]]:
    """Return [N, D]: the samples' hidden states at the last token that was read."""
    drawn: list[Candidate] = yield from gathering.one("samples")
    layer = gathering.assessment.layer
    seen = yield from _inspected(drawn, layer)
    return gathering.for_each(np.stack([sample_embedding(one.hidden[layer]) for one in seen]))


def candidate_embeddings(candidates: Any, layer: Layer) -> Asking[list[Singles]]:
    """Return [D] for each candidate: the mean hidden state of its prompt and its own tokens."""
    seen = yield from _inspected(candidates, layer)
    return [mean_embedding(one.hidden[layer]) for one in seen]


def _inspected(candidates: Any, layer: Layer) -> Asking[list[Internals]]:
    texts = tuple(one.prompt_ids + one.token_ids for one in candidates)
    seen: list[Internals] = yield Inspect(texts, Inspection((layer,)))
    return seen
