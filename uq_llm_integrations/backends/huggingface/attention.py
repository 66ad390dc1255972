"""Taking attention weights while a pass goes through the layers, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from uq_llm_integrations.errors import MethodUnavailableError
from uq_llm_integrations.records import Singles


class AttentionTaker:
    """Keeps, for each text of a batch padded on the right, its part of every layer's weights."""

    def __init__(self, lengths: Sequence[int], *, maps: bool) -> None:
        self._lengths, self._maps = lengths, maps
        self._layers: list[list[dict[str, Singles]]] = []
        """Layer -> text -> field of `Activations` -> its part for this layer."""

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """Take the weights of every pass of the model until this is left."""
        modules = list(attention_modules(model))
        with ExitStack() as hooks:
            for module in modules:
                hooks.enter_context(_removed(module.register_forward_hook(self._take)))
            yield

    def taken(self, text: int) -> dict[str, Singles]:
        """Return one text's fields of `Activations`, with the layers as the first axis."""
        if not self._layers:
            raise MethodUnavailableError("none of the model's layers tells attention weights")
        fields = self._layers[0][text]
        return {name: np.stack([layer[text][name] for layer in self._layers]) for name in fields}

    def _take(self, module: Any, inputs: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(weights, torch.Tensor) or weights.dim() != 4:
            raise MethodUnavailableError(f"{type(module).__name__} tells no attention weights")
        self._layers.append([self._part(weights[i], n) for i, n in enumerate(self._lengths)])

    def _part(self, weights: torch.Tensor, length: int) -> dict[str, Singles]:
        weights = weights[:, :length, :length]
        if self._maps:
            return {"attention_maps": _singles(weights)}
        return {
            "attention_self": _singles(weights.diagonal(dim1=-2, dim2=-1)),
            "attention_last": _singles(weights[:, -1]),
        }


def attention_modules(model: Any) -> Iterator[Any]:
    """Yield the modules that attend: named so in transformers, and with no other such inside."""
    for module in model.modules():
        inside = [one for one in module.modules() if one is not module]
        if _attends(module) and not any(map(_attends, inside)):
            yield module


def _attends(module: Any) -> bool:
    return type(module).__name__.endswith("Attention")


@contextmanager
def _removed(hook: Any) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()


def _singles(values: torch.Tensor) -> Singles:
    array: Singles = values.float().cpu().numpy().copy()
    return array
