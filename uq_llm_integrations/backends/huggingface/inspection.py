"""Activations of given tokens: hidden states and attention weights from one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from uq_llm_integrations.backends.base import layer_numbers
from uq_llm_integrations.backends.huggingface.forward import Ids, chosen_logprobs, padded_pass
from uq_llm_integrations.errors import EngineError, MethodUnavailableError
from uq_llm_integrations.records import Activations, Inspection, Singles

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def inspect_texts(
    model: PreTrainedModel, texts: Sequence[Ids], inspection: Inspection
) -> list[Activations]:
    """Return the activations of each text, from one pass padded on the right; none are padded."""
    if inspection.attention is None:
        return _activations(model, texts, inspection, None)
    lengths = [len(text) for text in texts]
    recorder = AttentionRecorder(lengths, maps=inspection.attention == "maps")
    with eager_attention(model), recorder.recording(model):
        return _activations(model, texts, inspection, recorder)


def _activations(
    model: PreTrainedModel,
    texts: Sequence[Ids],
    inspection: Inspection,
    recorder: AttentionRecorder | None,
) -> list[Activations]:
    wants_hidden = bool(inspection.hidden_layers)
    output = padded_pass(model, texts, output_hidden_states=wants_hidden)
    found, states = [], output.hidden_states
    numbers = layer_numbers(inspection, len(states) - 1) if states else {}
    for i, text in enumerate(texts):
        tokens = torch.tensor(text, device=output.logits.device)
        logprob = _singles(chosen_logprobs(output.logits[i, : len(text) - 1], tokens[1:]))
        hidden = {
            layer: _singles(states[number][i, : len(text)]) for layer, number in numbers.items()
        }
        attention = recorder.weights_of(i) if recorder else {}
        found.append(_checked(Activations(logprob, hidden, **attention)))
    return found


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use the attention that returns its weights; the faster ones never have them as a whole."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        if model.config._attn_implementation != "eager":
            raise MethodUnavailableError(
                f"{type(model).__name__} cannot change to eager attention, which alone returns "
                "its weights; load it with attn_implementation='eager'"
            )
        yield
    finally:
        model.set_attn_implementation(before)


class AttentionRecorder:
    """Keeps, for each text of a batch padded on the right, its part of every layer's weights."""

    def __init__(self, lengths: Sequence[int], *, maps: bool) -> None:
        self._lengths, self._maps = lengths, maps
        self._layers: list[list[dict[str, Singles]]] = []
        """Layer -> text -> field of `Activations` -> its part for this layer."""

    @contextmanager
    def recording(self, model: PreTrainedModel) -> Iterator[None]:
        """Record the weights of every pass of the model inside this context."""
        modules = list(attention_modules(model))
        with ExitStack() as hooks:
            for module in modules:
                hooks.enter_context(_removed(module.register_forward_hook(self._record)))
            yield

    def weights_of(self, text: int) -> dict[str, Singles]:
        """Return one text's fields of `Activations`, with the layers as the first axis."""
        if not self._layers:
            raise MethodUnavailableError("none of the model's layers returns attention weights")
        fields = self._layers[0][text]
        return {name: np.stack([layer[text][name] for layer in self._layers]) for name in fields}

    def _record(self, module: torch.nn.Module, inputs: object, output: object) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(weights, torch.Tensor) or weights.dim() != 4:
            raise MethodUnavailableError(f"{type(module).__name__} returns no attention weights")
        self._layers.append([self._part(weights[i], n) for i, n in enumerate(self._lengths)])

    def _part(self, weights: torch.Tensor, length: int) -> dict[str, Singles]:
        weights = weights[:, :length, :length]
        if self._maps:
            return {"attention_maps": _singles(weights)}
        return {
            "attention_self": _singles(weights.diagonal(dim1=-2, dim2=-1)),
            "attention_last": _singles(weights[:, -1]),
        }


def attention_modules(model: PreTrainedModel) -> Iterator[torch.nn.Module]:
    """Yield the modules that attend: named so in transformers, and with no other such inside."""
    for module in model.modules():
        inside = [one for one in module.modules() if one is not module]
        if _attends(module) and not any(map(_attends, inside)):
            yield module


def _attends(module: torch.nn.Module) -> bool:
    return type(module).__name__.endswith("Attention")


@contextmanager
def _removed(hook: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()


def _singles(values: torch.Tensor) -> Singles:
    # A copy, since a view would keep the whole tensor in memory.
    array: Singles = values.float().cpu().numpy().copy()
    return array


def _checked(activations: Activations) -> Activations:
    """Return activations of which all is a number; what the model itself made NaN is an error."""
    arrays = [activations.logprob, *activations.hidden.values(), activations.attention_last]
    for array in arrays:
        if array is not None and bool((array != array).any()):
            raise EngineError("the model's activations are not numbers; a wider dtype may help")
    return activations
