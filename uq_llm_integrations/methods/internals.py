"""Hidden states and attention, from one pass of each candidate through the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from uq_llm_integrations.errors import UncertaintyError
from uq_llm_integrations.methods.alternatives import top_traces
from uq_llm_integrations.methods.attention import eliciting_prompt
from uq_llm_integrations.methods.context import EvidenceError, Gathering, provides
from uq_llm_integrations.methods.contrib.luh import LuhHead
from uq_llm_integrations.methods.embeddings import mean_embedding, sample_embedding
from uq_llm_integrations.methods.fitted.density import DensityFit
from uq_llm_integrations.methods.fitted.head import Head
from uq_llm_integrations.methods.wishes import Asking, Compute, Encode, Inspect
from uq_llm_integrations.records import Activations, Candidate, Inspection, Singles


@provides("attention_self")
def attention_self(gathering: Gathering) -> Asking[list[Any]]:
    """Return [L, H, S] for each candidate: what each token attends to itself."""
    return [_own_attention(one) for one in (yield from _seen(gathering, "attention_self"))]


def _own_attention(seen: Activations) -> Singles | None:
    if seen.attention_maps is None:
        return seen.attention_self
    return np.asarray(seen.attention_maps.diagonal(axis1=2, axis2=3))


@provides("attention_weights_eliciting_prompt")
def eliciting_attention(gathering: Gathering) -> Asking[list[Any]]:
    """Return [L, H, T] for each candidate: what a prompt for a verdict attends to its tokens."""
    question = yield from gathering.question()
    before, after = eliciting_prompt(question)
    head, tail = (yield Encode(before)), (yield Encode(after, follows=True))
    texts = tuple(head + one.token_ids + tail for one in gathering.candidates)
    seen: list[Activations] = yield Inspect(texts, Inspection(attention="bands"))
    rows = []
    for one, candidate in zip(seen, gathering.candidates, strict=True):
        assert one.attention_last is not None
        rows.append(one.attention_last[..., len(head) : len(head) + len(candidate.token_ids)])
    return rows


@provides("embeddings_decoder")
def embeddings(gathering: Gathering) -> Asking[list[Any]]:
    """Return [D] for each candidate: its mean hidden state at the layer of the density fit."""
    layer = _density(gathering).layer
    seen = yield from _seen(gathering, "embeddings_decoder")
    return [mean_embedding(one.hidden[layer]) for one in seen]


@provides("background")
def background(gathering: Gathering) -> Asking[list[Any]]:
    """Make sure that texts of any kind were fitted, too."""
    yield from ()
    if not _density(gathering).has_background:
        raise EvidenceError("the density was fitted without a background; see fit_density")
    return gathering.for_each(True)


@provides("ranks")
def ranks(gathering: Gathering) -> Asking[list[Any]]:
    """Make sure that the perplexities of the training texts were fitted, too."""
    yield from ()
    if not _density(gathering).has_ranks:
        raise EvidenceError("the density was fitted without perplexities; see fit_density")
    return gathering.for_each(True)


@provides("head_doubt")
def doubts(gathering: Gathering) -> Asking[list[Any]]:
    """Return the probability that each candidate is wrong, by the supervised head."""
    head = _head(gathering)
    pairs = yield from _read_by_head(gathering, head, "head_doubt")
    found: list[float] = yield Compute(lambda: [head.doubt(one, seen) for one, seen in pairs])
    return found


@provides("head_claim_doubts")
def claim_doubts(gathering: Gathering) -> Asking[list[Any]]:
    """Return [claims] for each candidate: the probability that each is wrong, by a luh head."""
    head = _head(gathering)
    if not isinstance(head, LuhHead):
        raise EvidenceError("the supervised head knows whole answers only; see LuhHead")
    rows = yield from gathering.get("claims")
    places = [[claim.tokens for claim in row] for row in rows]
    pairs = yield from _read_by_head(gathering, head, "head_claim_doubts")

    def computed() -> list[Any]:
        each = zip(pairs, places, strict=True)
        return [head.doubts(one, seen, claims) if claims else [] for (one, seen), claims in each]

    found: list[Any] = yield Compute(computed)
    return found


def _read_by_head(
    gathering: Gathering, head: Head, name: str
) -> Asking[list[tuple[Candidate, Activations]]]:
    candidates = list(gathering.candidates)
    seen = yield from _seen(gathering, name)
    if head.top_logprobs:
        traces = yield from top_traces(candidates, head.top_logprobs)
        pairs = zip(candidates, traces, strict=True)
        candidates = [replace(one, trace=trace) for one, trace in pairs]
    return list(zip(candidates, seen, strict=True))


@provides("sample_embeddings")
def sample_embeddings(gathering: Gathering) -> Asking[list[Any]]:
    """Return [N, D]: the samples' hidden states at the last token that was read."""
    drawn: list[Candidate] = yield from gathering.one("samples")
    layer = gathering.method_options.layer
    places = {id(one): place for place, one in enumerate(gathering.candidates)}
    if all(id(one) in places for one in drawn):
        every = yield from _seen(gathering, "sample_embeddings")
        seen = [every[places[id(one)]] for one in drawn]
    else:
        seen = yield _look(drawn, Inspection((layer,)))
    return gathering.for_each(np.stack([sample_embedding(one.hidden[layer]) for one in seen]))


_NEEDS: Mapping[str, Callable[[Gathering], Inspection]] = {
    "attention_self": lambda gathering: Inspection(attention="bands"),
    "embeddings_decoder": lambda gathering: Inspection((_density(gathering).layer,)),
    "head_doubt": lambda gathering: _head(gathering).inspection,
    "head_claim_doubts": lambda gathering: _head(gathering).inspection,
    "sample_embeddings": lambda gathering: Inspection((gathering.method_options.layer,)),
}
"""What each name needs to be seen of the candidates."""


@provides("internals")
def internals(gathering: Gathering) -> Asking[list[Any]]:
    """Return what all wanted names need to see of each candidate, from one pass."""
    seen: list[Activations] = yield _look(gathering.candidates, _joined(_needs(gathering)))
    return seen


def _seen(gathering: Gathering, name: str) -> Asking[list[Activations]]:
    """Return at least what a name needs to see of each candidate.

    Where the pass for all wanted names fails, each is left to its own, so that what one of them
    cannot have is no other's loss.
    """
    own = _NEEDS[name](gathering)
    if name in gathering.wanted:
        try:
            shared: list[Activations] = yield from gathering.get("internals")
        except UncertaintyError:
            if _joined(_needs(gathering)) == own:
                raise
        else:
            return shared
    seen: list[Activations] = yield _look(gathering.candidates, own)
    return seen


def _needs(gathering: Gathering) -> list[Inspection]:
    found = []
    for name, need in _NEEDS.items():
        is_of_others = name == "sample_embeddings" and len(gathering.candidates) < 2
        if name in gathering.wanted and not is_of_others:
            try:
                found.append(need(gathering))
            except EvidenceError:
                continue  # its own provider says what is missing
    return found


def _joined(needs: Sequence[Inspection]) -> Inspection:
    layers = dict.fromkeys(layer for need in needs for layer in need.hidden_layers)
    kinds = {need.attention for need in needs}
    kind = next((kind for kind in ("maps", "bands") if kind in kinds), None)
    return Inspection(tuple(layers), kind)


def _look(candidates: Sequence[Candidate], inspection: Inspection) -> Inspect:
    return Inspect(tuple(one.prompt_ids + one.token_ids for one in candidates), inspection)


def _density(gathering: Gathering) -> DensityFit:
    if gathering.method_options.density is None:
        raise EvidenceError("no density was fitted; see fit_density")
    return gathering.method_options.density


def _head(gathering: Gathering) -> Head:
    if gathering.method_options.head is None:
        raise EvidenceError("no supervised head was fitted; see fit_head")
    return gathering.method_options.head
