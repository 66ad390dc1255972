"""Passing given tokens through the model, and what is inside meanwhile."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from uq_llm_integrations.backends.base import layer_number
from uq_llm_integrations.backends.huggingface.attention import AttentionTaker
from uq_llm_integrations.backends.huggingface.trace import chosen_logprobs
from uq_llm_integrations.errors import EngineError, MethodUnavailableError
from uq_llm_integrations.records import Activations, Inspection, Singles

Ids = tuple[int, ...]


def inspected(model: Any, texts: Sequence[Ids], inspection: Inspection) -> list[Activations]:
    """Return the internals of each text, from one pass padded on the right; none are padded."""
    if inspection.attention is None:
        return _internals(model, texts, inspection, None)
    lengths = [len(text) for text in texts]
    taker = AttentionTaker(lengths, maps=inspection.attention == "maps")
    with eager(model), taker.watching(model):
        return _internals(model, texts, inspection, taker)


def forward(model: Any, ids: torch.Tensor, **arguments: Any) -> Any:
    """Return the model's output for token ids [rows, tokens]."""
    with torch.inference_mode():
        return model(ids.to(model.device), **arguments)


def padded_pass(model: Any, texts: Sequence[Ids], **arguments: Any) -> Any:
    """Return the model's output for whole texts, padded on the right."""
    width = max(map(len, texts))
    rows = [[*text, *[0] * (width - len(text))] for text in texts]
    if any(len(text) < width for text in texts):
        mask = [[1] * len(text) + [0] * (width - len(text)) for text in texts]
        arguments["attention_mask"] = torch.tensor(mask, device=model.device)
    return forward(model, torch.tensor(rows), use_cache=False, **arguments)


def last_logits(model: Any, count: int) -> dict[str, int]:
    """Return the argument that has a model compute no more than its last logits."""
    takes_it = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": count} if takes_it else {}


def _internals(
    model: Any, texts: Sequence[Ids], inspection: Inspection, taker: AttentionTaker | None
) -> list[Activations]:
    wants_hidden = bool(inspection.hidden_layers)
    output = padded_pass(model, texts, output_hidden_states=wants_hidden)
    found, states = [], output.hidden_states
    for i, text in enumerate(texts):
        tokens = torch.tensor(text, device=output.logits.device)
        logprob = _singles(chosen_logprobs(output.logits[i, : len(text) - 1], tokens[1:]))
        hidden = {
            layer: _singles(states[layer_number(layer, len(states) - 1)][i, : len(text)])
            for layer in inspection.hidden_layers
        }
        attention = taker.taken(i) if taker else {}
        found.append(_whole(Activations(logprob, hidden, **attention)))
    return found


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Use the attention that tells its weights; the faster ones never have them as a whole."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        if model.config._attn_implementation != "eager":
            raise MethodUnavailableError(
                f"{type(model).__name__} cannot change to eager attention, which alone tells its "
                "weights; load it with attn_implementation='eager'"
            )
        yield
    finally:
        model.set_attn_implementation(before)


def _singles(values: torch.Tensor) -> Singles:
    array: Singles = values.float().cpu().numpy()
    return array


def _whole(internals: Activations) -> Activations:
    """Return internals of which all is a number; what the model itself made NaN is an error."""
    arrays = [internals.logprob, *internals.hidden.values(), internals.attention_last]
    for array in arrays:
        if array is not None and bool((array != array).any()):
            raise EngineError("what is inside the model is not a number; a wider dtype may help")
    return internals
