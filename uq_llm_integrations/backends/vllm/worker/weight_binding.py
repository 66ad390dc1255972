"""Binding the transformers definition of a model to the layers that vLLM already holds.

No weight is copied, and no line is written for any single model: where a layer of the definition
is found in vLLM follows from its path, from the names in the checkpoint that both read, and from
vLLM's own `packed_modules_mapping`. Because vLLM's layer does the multiplication, it does not
matter how it keeps its weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.pytorch_utils import Conv1D

from uq_llm_integrations.backends.vllm.worker import compat


class NotShareableError(Exception):
    """Something in the definition has no counterpart in the engine; the message names it."""


class Names:
    """Where the engine keeps what the definition has at a path."""

    def __init__(self, definition: nn.Module, engine: nn.Module) -> None:
        self._modules = dict(engine.named_modules(remove_duplicate=False))
        self._layout = compat.layout_of(engine)
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
        for owner, name in self._names(path, tensor):
            if owner in self._modules:
                return self._modules[owner], name
        return None, tensor

    def fused(self, path: str) -> tuple[nn.Module, int] | None:
        """Return the engine's layer that a layer is fused into, and its index among the parts."""
        for owner, _ in self._names(path, "weight"):
            parent, leaf = _split(owner)
            for name, parts in self._layout.fused.items():
                if leaf in parts and f"{parent}.{name}" in self._modules:
                    return self._modules[f"{parent}.{name}"], parts.index(leaf)
        return None

    def _names(self, path: str, tensor: str) -> Iterator[tuple[str, str]]:
        """Yield the path and name themselves, those in the checkpoint, and vLLM's for these."""
        yield path, tensor
        name = f"{path}.{tensor}"
        for renaming in self._renamings:
            name, _ = renaming.rename_source_key(name)
        yield _split(name)
        if mapped := self._layout.map_name(name):
            yield _split(mapped)


def _split(name: str) -> tuple[str, str]:
    path, _, tensor = name.rpartition(".")
    return path, tensor


class EngineModule(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Stands in for a module of the definition."""

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self._theirs = (theirs,)  # within a tuple it does not become a child

    def _output(self, states: torch.Tensor) -> Any:
        """Return what the engine's module makes of states [..., in], as [tokens, out]."""
        return self._theirs[0](states.reshape(-1, states.shape[-1]))


class EngineLinear(EngineModule):
    """A layer of the engine's that stands in for a linear layer of the definition."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return [..., out] of states [..., in]."""
        output = self._output(states)
        if isinstance(output, tuple):  # the bias comes apart where it was not added yet
            output, bias = output
            output = output if bias is None else output + bias
        return output.view(*states.shape[:-1], output.shape[-1])


class FusedOutput:
    """The output of one fused layer, computed once for all of its parts."""

    def __init__(self, layer: nn.Module, sizes: list[int]) -> None:
        self.sizes = sizes
        self._call = EngineLinear(layer)
        self._input: torch.Tensor | None = None
        self._parts: tuple[torch.Tensor, ...] = ()
        self._left: set[int] = set()

    def part(self, index: int, states: torch.Tensor) -> torch.Tensor:
        """Return one part of the output for these very states; once all are read, let go."""
        if self._input is not states or index not in self._left:
            self._input, self._left = states, set(range(len(self.sizes)))
            self._parts = self._call(states).split(self.sizes, -1)
        self._left.remove(index)
        part = self._parts[index]
        if not self._left:
            self._input, self._parts = None, ()
        return part


class EnginePart(EngineModule):
    """A part of a fused layer that stands in for a linear layer of the definition."""

    def __init__(self, fused: FusedOutput, index: int) -> None:
        super().__init__(fused)
        self._index = index

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return [..., out] of states [..., in]."""
        part: torch.Tensor = self._theirs[0].part(self._index, states)
        return part


class TrialOutput(torch.Tensor):  # type: ignore[misc]  # torch is not followed
    """What a block returns in a trial pass; it notes whether it is taken for a tuple.

    A definition whose block returns more than hidden states unpacks or indexes what it gets.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl
    block: EngineBlock

    def __iter__(self) -> Iterator[torch.Tensor | None]:
        return iter(self._as_tuple())

    def __getitem__(self, index: object) -> torch.Tensor | None:
        return self._as_tuple()[index] if isinstance(index, int) else super().__getitem__(index)

    def _as_tuple(self) -> tuple[torch.Tensor, None]:
        self.block.returns_tuple = True
        return self.as_subclass(torch.Tensor), None


class EngineBlock(EngineModule):
    """A block of the engine's that stands in for one whose inside it keeps in another form."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.returns_tuple = False
        """Whether the definition takes more than hidden states from it: None is put beside them."""
        self.is_on_trial = False

    def forward(self, states: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, None]:
        """Return [..., D] of states [..., D], alone or as a tuple."""
        output = self._output(states).view(states.shape)
        if self.is_on_trial:
            output = output.as_subclass(TrialOutput)
            output.block = self
            return output
        return (output, None) if self.returns_tuple else output


class Binder:
    """Puts the engine's layers and parameters into a definition on the meta device."""

    def __init__(self, definition: nn.Module, engine: nn.Module) -> None:
        self._names = Names(definition, engine)
        self._outputs: dict[nn.Module, FusedOutput] = {}

    def bind(self, module: nn.Module, path: str) -> None:
        """Replace all that a module computes with; NotShareableError names what cannot be."""
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
            return EngineBlock(block)

    def _linear(self, linear: nn.Module, path: str) -> nn.Module:
        size = linear.out_features if isinstance(linear, nn.Linear) else linear.nf
        layer = self._names.module(path)
        if layer is not None and (sizes := compat.output_sizes(layer)):
            _check_size(path, size, sum(sizes))
            return EngineLinear(layer)
        found = self._names.fused(path)
        sizes = compat.output_sizes(found[0]) if found else None
        if found is None or sizes is None:
            raise NotShareableError(f"the engine has no layer {path}")
        owner, index = found
        _check_size(path, size, sizes[index])
        fused = self._outputs.setdefault(owner, FusedOutput(owner, sizes))
        return EnginePart(fused, index)

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
        if not isinstance(theirs, torch.Tensor) or compat.output_sizes(owner):
            raise NotShareableError(f"the engine has no parameter {path}.{name}")
        if compat.has_padded_rows(owner):
            theirs = theirs[: len(own)]
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
