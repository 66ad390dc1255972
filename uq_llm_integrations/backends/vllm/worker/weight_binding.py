"""Binding the transformers definition of a model to the layers that vLLM already holds.

No weight is copied, and no line is written for any single model: where a layer of the definition
is found in vLLM follows from its path, from the names in the checkpoint that both read, and from
vLLM's own `packed_modules_mapping`. Because vLLM's layer does the multiplication, it does not
matter how it keeps its weights.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import replace
from textwrap import dedent
from typing import Any

import torch
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.pytorch_utils import Conv1D
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding


class NotShareableError(Exception):
    """Something in the definition has no counterpart in the engine; the message names it."""


class Names:
    """Where the engine keeps what the definition has at a path."""

    def __init__(self, definition: nn.Module, engine: nn.Module) -> None:
        self._modules = dict(engine.named_modules(remove_duplicate=False))
        self._fused = dict(getattr(engine, "packed_modules_mapping", {}))
        mapper = getattr(engine, "hf_to_vllm_mapper", None)
        self._mapper = replace(mapper, orig_to_new_stacked={}) if mapper else None
        renamings = get_model_conversion_mapping(definition, add_legacy=False)
        self._renamings = [
            one.reverse_transform()
            for one in reversed(renamings)
            if isinstance(one, WeightRenaming)
        ]

    def module(self, path: str) -> nn.Module | None:
        """Return the engine's module of the same path, None where it has none."""
        return self.owner(path, "weight")[0]

    def owner(self, path: str, tensor: str) -> tuple[nn.Module | None, str]:
        """Return the engine's module that has a tensor, None where none has, and its name there."""
        for place, name in self._places(path, tensor):
            if place in self._modules:
                return self._modules[place], name
        return None, tensor

    def fused(self, path: str) -> tuple[nn.Module, int] | None:
        """Return the engine's layer that a layer is fused into, and its place among the parts."""
        for place, _ in self._places(path, "weight"):
            parent, leaf = _split(place)
            for name, parts in self._fused.items():
                if leaf in parts and f"{parent}.{name}" in self._modules:
                    return self._modules[f"{parent}.{name}"], parts.index(leaf)
        return None

    def _places(self, path: str, tensor: str) -> Iterator[tuple[str, str]]:
        """Yield the place itself, the one in the checkpoint, and what vLLM makes of that."""
        yield path, tensor
        name = f"{path}.{tensor}"
        for renaming in self._renamings:
            name, _ = renaming.rename_source_key(name)
        yield _split(name)
        if self._mapper and (mapped := self._mapper.map_name(name)):
            yield _split(mapped)


def _split(name: str) -> tuple[str, str]:
    path, _, tensor = name.rpartition(".")
    return path, tensor


class EngineModule(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Stands in the place of a module of the definition."""

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self._theirs = (theirs,)  # within a tuple it does not become a child

    def _output(self, states: torch.Tensor) -> Any:
        """Return what the engine's module makes of states [..., in], as [tokens, out]."""
        return self._theirs[0](states.reshape(-1, states.shape[-1]))


class EngineLinear(EngineModule):
    """A layer of the engine's in the place of a linear layer of the definition."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return [..., out] of states [..., in]."""
        output = self._output(states)
        if isinstance(output, tuple):  # the bias comes apart where it was not added yet
            output, bias = output
            output = output if bias is None else output + bias
        return output.view(*states.shape[:-1], output.shape[-1])


class FusedOutput:
    """The output of one fused layer, computed once for all of its parts."""

    def __init__(self, layer: nn.Module) -> None:
        self.sizes: list[int] = list(layer.output_partition_sizes)
        self._call = EngineLinear(layer)
        self._input: torch.Tensor | None = None
        self._parts: tuple[torch.Tensor, ...] = ()
        self._left: set[int] = set()

    def part(self, place: int, states: torch.Tensor) -> torch.Tensor:
        """Return one part of the output for these very states; once all are read, let go."""
        if self._input is not states or place not in self._left:
            self._input, self._left = states, set(range(len(self.sizes)))
            self._parts = self._call(states).split(self.sizes, -1)
        self._left.remove(place)
        part = self._parts[place]
        if not self._left:
            self._input, self._parts = None, ()
        return part


class EnginePart(EngineModule):
    """A part of a fused layer in the place of a linear layer of the definition."""

    def __init__(self, fused: FusedOutput, place: int) -> None:
        super().__init__(fused)
        self._place = place

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return [..., out] of states [..., in]."""
        part: torch.Tensor = self._theirs[0].part(self._place, states)
        return part


class EngineBlock(EngineModule):
    """A block of the engine's in the place of one whose inside it keeps in another form."""

    def __init__(self, block: nn.Module, *, gives_more: bool) -> None:
        super().__init__(block)
        self._gives_more = gives_more

    def forward(self, states: torch.Tensor) -> Any:
        """Return [..., D] of states [..., D], and None beside it where the definition has more."""
        output = self._output(states).view(states.shape)
        return (output, None) if self._gives_more else output


class Binder:
    """Puts the engine's layers and parameters into a definition on the meta device."""

    def __init__(self, definition: nn.Module, engine: nn.Module) -> None:
        self._names = Names(definition, engine)
        self._outputs: dict[nn.Module, FusedOutput] = {}

    def bind(self, module: nn.Module, path: str) -> None:
        """Replace all that a module computes with; NotShareableError names what has no place."""
        self._bind_tensors(module, path)
        for name, child in list(module.named_children()):
            setattr(module, name, self._bound(child, f"{path}.{name}"))

    def _bound(self, module: nn.Module, path: str) -> nn.Module:
        if isinstance(module, nn.Linear | Conv1D):
            return self._linear(module, path)
        try:
            self.bind(module, path)
            return module
        except NotShareableError:
            block = self._names.module(path)
            if block is None or not (_takes_states(module) and _takes_states(block)):
                raise
            return EngineBlock(block, gives_more=_returns_tuple(module))

    def _linear(self, linear: nn.Module, path: str) -> nn.Module:
        size = linear.out_features if isinstance(linear, nn.Linear) else linear.nf
        layer = self._names.module(path)
        if isinstance(layer, LinearBase):
            _check_size(path, size, layer.output_size)
            return EngineLinear(layer)
        found = self._names.fused(path)
        if found is None or not isinstance(found[0], LinearBase):
            raise NotShareableError(f"the engine has no layer {path}")
        fused = self._outputs.setdefault(found[0], FusedOutput(found[0]))
        _check_size(path, size, fused.sizes[found[1]])
        return EnginePart(fused, found[1])

    def _bind_tensors(self, module: nn.Module, path: str) -> None:
        for name, own in module.named_parameters(recurse=False):
            theirs = self._tensor(path, name, own)
            setattr(module, name, nn.Parameter(theirs, requires_grad=False))
        for name, own in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                setattr(module, name, self._tensor(path, name, own))

    def _tensor(self, path: str, name: str, own: torch.Tensor) -> torch.Tensor:
        owner, their_name = self._names.owner(path, name)
        theirs = getattr(owner, their_name, None)
        if not isinstance(theirs, torch.Tensor) or isinstance(owner, LinearBase):
            raise NotShareableError(f"the engine has no parameter {path}.{name}")
        if isinstance(owner, VocabParallelEmbedding):
            theirs = theirs[: len(own)]  # vLLM pads the vocabulary
        if theirs.shape != own.shape:
            raise NotShareableError(
                f"{path}.{name} has shape {tuple(theirs.shape)} in the engine, not "
                f"{tuple(own.shape)}"
            )
        return theirs.detach()


def _check_size(path: str, size: int, engine_size: int) -> None:
    if size != engine_size:
        raise NotShareableError(f"{path} gives {engine_size} values in the engine, not {size}")


def _takes_states(module: nn.Module) -> bool:
    """Return whether hidden states are all that a module needs."""
    needed = [
        one
        for one in inspect.signature(module.forward).parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    return len(needed) == 1


def _returns_tuple(module: nn.Module) -> bool:
    """Return whether a definition's block returns more than hidden states, as its source says."""
    tree = ast.parse(dedent(inspect.getsource(type(module).forward)))
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    return any(isinstance(value, ast.Tuple) for value in returned)
