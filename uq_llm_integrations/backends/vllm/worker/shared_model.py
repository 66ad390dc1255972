"""What runs inside the engine's worker to look inside the model: one pass, on its own layers.

vLLM returns neither hidden states nor attention weights. The transformers definition of the same
model does, so it is built without weights, computes with vLLM's layers instead of its own, and
takes vLLM's own head for the logits.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save
from torch import nn
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from uq_llm_integrations.backends.vllm.worker import compat
from uq_llm_integrations.backends.vllm.worker.weight_binding import (
    Binder,
    EngineBlock,
    NotShareableError,
)

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_ATTENTION = "uq_shared"

# Logits at a time, so that a large vocabulary needs little memory: 16 MiB of them.
_LOGITS = 1 << 22


class Weights:
    """Keeps of each layer's attention weights what is needed, before the next layer computes."""

    def __init__(self, lengths: Sequence[int], *, maps: bool) -> None:
        self._lengths, self._maps = lengths, maps
        self._layers: list[dict[str, list[torch.Tensor]]] = []

    def take(self, weights: torch.Tensor) -> None:
        """Keep what is needed of one layer's weights [B, H, S, S]."""
        parts = [weights[i, :, :n, :n] for i, n in enumerate(self._lengths)]
        if self._maps:
            self._layers.append({"attention_maps": [_singles(part) for part in parts]})
            return
        self._layers.append(
            {
                "attention_self": [part.diagonal(dim1=-2, dim2=-1).clone() for part in parts],
                "attention_last": [part[:, -1].clone() for part in parts],
            }
        )

    def of_text(self, i: int) -> dict[str, torch.Tensor]:
        """Return the fields of `Activations` of one text, layers first."""
        if not self._layers:
            raise NotShareableError("no layer of the model returns its attention weights")
        return {
            field: _singles(torch.stack([layer[field][i] for layer in self._layers]))
            for field in self._layers[0]
        }


_taking: list[Weights] = []


def _attend(
    module: nn.Module, *tensors: torch.Tensor, **arguments: object
) -> tuple[torch.Tensor, None]:
    """Attend as the definition's own eager attention does, whatever is special about it."""
    eager = sys.modules[type(module).__module__].eager_attention_forward
    output, weights = eager(module, *tensors, **arguments)
    if _taking:
        _taking[-1].take(weights)
    return output, None


AttentionInterface.register(_ATTENTION, _attend)
AttentionMaskInterface.register(_ATTENTION, eager_mask)


class SharedModel:
    """The definition of the engine's model, which computes on the engine's layers."""

    def __init__(self, engine: nn.Module, config: VllmConfig, device: torch.device) -> None:
        """Bind the definition; NotShareableError names what cannot be bound."""
        self._engine, self._config, self._device = engine, config, device
        definition = _definition(config)
        _fill_buffers(definition, device)
        self.decoder: nn.Module = definition.base_model
        """The definition without its head; its weights are the engine's."""
        if self.decoder is definition:
            raise NotShareableError(f"{type(definition).__name__} has no decoder of its own")
        Binder(definition, engine).bind(self.decoder, definition.base_model_prefix)
        self.decoder.eval()
        count = definition.config.num_hidden_layers
        self._layers = _layers(self.decoder, count)
        self._try_blocks()

    def inspect(
        self, texts: Sequence[Sequence[int]], layers: Sequence[int], attention: str | None
    ) -> bytes:
        """Return what `Activations` holds, in safetensors under '<text>.<field>[.<layer>]'.

        `layers` count from 0 to L. Empty where the device's memory ran out.
        """
        try:
            with torch.inference_mode():
                saved: bytes = save(self._inspect(texts, layers, attention))
                return saved
        except torch.OutOfMemoryError:
            return b""

    def _inspect(
        self, texts: Sequence[Sequence[int]], layers: Sequence[int], attention: str | None
    ) -> dict[str, torch.Tensor]:
        lengths = [len(text) for text in texts]
        weights = Weights(lengths, maps=attention == "maps") if attention else None
        with self._keeping(layers) as states:
            last = self._pass(texts, lengths, weights)
        if len(self._layers) in layers:
            states[len(self._layers)] = last
        found: dict[str, torch.Tensor] = {}
        for i, logprob in enumerate(self._logprobs(texts, last)):
            fields = weights.of_text(i) if weights else {}
            fields |= {f"hidden.{n}": _singles(states[n][i, : lengths[i]]) for n in layers}
            fields["logprob"] = _singles(logprob)
            found |= {f"{i}.{name}": values for name, values in fields.items()}
        return found

    def _try_blocks(self) -> None:
        """Find out in a pass over two tokens which of the engine's blocks must return tuples."""
        blocks = [one for one in self.decoder.modules() if isinstance(one, EngineBlock)]
        if not blocks:
            return
        for block in blocks:
            block.is_on_trial = True
        try:
            with torch.inference_mode():
                self._pass([[0, 0]], [2], None)
        finally:
            for block in blocks:
                block.is_on_trial = False

    def _pass(
        self, texts: Sequence[Sequence[int]], lengths: list[int], weights: Weights | None
    ) -> torch.Tensor:
        """Return the last hidden states [B, S, D] of texts padded on the right."""
        width = max(lengths)
        ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])
        real = torch.arange(width) < torch.tensor(lengths)[:, None]
        arguments = {} if real.all() else {"attention_mask": real.long().to(self._device)}
        _taking[:] = [weights] if weights else []
        try:
            with compat.forward_context(self._config, ids.numel()):
                output = self.decoder(input_ids=ids.to(self._device), use_cache=False, **arguments)
        finally:
            _taking.clear()
        states: torch.Tensor = output.last_hidden_state
        return states

    def _logprobs(
        self, texts: Sequence[Sequence[int]], states: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Return for each text the log-probability of every token but the first."""
        rows = torch.cat([states[i, : len(text) - 1] for i, text in enumerate(texts)])
        tokens = [token for text in texts for token in text[1:]]
        chosen = torch.tensor(tokens, dtype=torch.long, device=self._device)
        size = max(1, _LOGITS // self._config.model_config.get_vocab_size())
        parts = zip(rows.split(size), chosen.split(size), strict=True)
        logprobs = torch.cat([self._chosen(*part) for part in parts])
        return tuple(logprobs.split([len(text) - 1 for text in texts]))

    def _chosen(self, rows: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        if not len(rows):
            return rows.new_zeros(0)
        logits = compat.compute_logits(self._engine, rows).float()
        return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)

    @contextmanager
    def _keeping(self, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
        """Keep the hidden states that enter some of the blocks while this is open."""
        states: dict[int, torch.Tensor] = {}

        def keep(
            number: int, inputs: tuple[torch.Tensor, ...], arguments: dict[str, torch.Tensor]
        ) -> None:
            states[number] = inputs[0] if inputs else arguments["hidden_states"]

        with ExitStack() as hooks:
            for number in {n for n in layers if n < len(self._layers)}:
                hook = self._layers[number].register_forward_pre_hook(
                    lambda _, inputs, arguments, number=number: keep(number, inputs, arguments),
                    with_kwargs=True,
                )
                hooks.callback(hook.remove)
            yield states


def _definition(config: VllmConfig) -> nn.Module:
    """Return the transformers model on the meta device, without any weight."""
    described = copy.deepcopy(config.model_config.hf_config)
    if hasattr(described, "quantization_config"):
        del described.quantization_config
    if config.model_config.disable_sliding_window:
        # vLLM has put None, where some definitions need a number; this one changes nothing.
        described.sliding_window = config.model_config.max_model_len
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            described,
            dtype=config.model_config.dtype,
            attn_implementation=_ATTENTION,
            trust_remote_code=config.model_config.trust_remote_code,
        )


def _fill_buffers(definition: nn.Module, device: torch.device) -> None:
    """Give the buffers that no checkpoint holds their values, as transformers does on loading."""
    for module in definition.modules():
        for name in module._non_persistent_buffers_set:
            if (buffer := module._buffers[name]) is not None:
                fill = torch.nan if buffer.is_floating_point() else 0
                module._buffers[name] = torch.full_like(buffer, fill, device=device)
    definition.initialize_weights()  # of the parameters none is real yet
    for name, buffer in definition.named_buffers():
        if not buffer.is_meta and buffer.isnan().any():
            raise NotShareableError(f"the buffer {name} has no value of its own")


def _layers(decoder: nn.Module, count: int) -> nn.ModuleList:
    for module in decoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise NotShareableError(f"{type(decoder).__name__} has no list of its {count} layers")


def _singles(values: torch.Tensor) -> torch.Tensor:
    return values.float().contiguous().cpu()
