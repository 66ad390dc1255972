"""The pass on vLLM's quantised layers, against plain transformers on the weights they stand for."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file, save_file
from torch import nn

from tests.backends.vllm import test_shared as sharing

one_process = sharing.one_process  # a fixture here as well

Rounding = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

GROUP = 32
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def whole(most: int, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers from -most to most, and the scale of each row [..., n]."""
    scale = values.abs().amax(-1, keepdim=True).clamp(min=1e-9) / most
    return (values / scale).round(), scale


def floating(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Floating-point numbers of eight bits, and the scale of each row [..., n]."""
    scale = values.abs().amax(-1, keepdim=True).clamp(min=1e-9) / 448
    return (values / scale).to(torch.float8_e4m3fn).to(values.dtype), scale


@dataclass(frozen=True)
class Format:
    """A format of compressed-tensors: its configuration, and how weights and inputs round."""

    name: str
    weights: dict[str, Any]
    round_weights: Rounding
    activations: dict[str, Any] | None = None
    round_inputs: Rounding | None = None
    dtype: torch.dtype | None = None

    def described(self) -> dict[str, Any]:
        group = {
            "targets": ["Linear"],
            "weights": self.weights,
            "input_activations": self.activations,
        }
        return {
            "quant_method": "compressed-tensors",
            "quantization_status": "compressed",
            "format": self.name,
            "ignore": ["lm_head"],
            "config_groups": {"group_0": group},
        }


INT, FLOAT = ({"type": kind, "symmetric": True, "num_bits": 8} for kind in ("int", "float"))
ROWS, TOKENS = {"strategy": "channel"}, {"strategy": "token", "dynamic": True}

FORMATS = {
    "w4a16": Format(
        "pack-quantized",
        INT | {"num_bits": 4, "strategy": "group", "group_size": GROUP},
        partial(whole, 7),
    ),
    # Where the CPU has no VNNI, oneDNN adds pairs of products in sixteen bits, which weights above
    # 63 overflow: an error of its own there, with which nothing could agree.
    "w8a8": Format(
        "int-quantized",
        INT | ROWS,
        partial(whole, 63),
        INT | TOKENS,
        partial(whole, 127),
        torch.int8,
    ),
    "fp8": Format(
        "float-quantized", FLOAT | ROWS, floating, FLOAT | TOKENS, floating, torch.float8_e4m3fn
    ),
}


def compressed(weight: torch.Tensor, kind: Format) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A weight's tensors in the checkpoint, and the weight that they stand for."""
    if kind.dtype:
        numbers, scale = kind.round_weights(weight)
        return {"weight": numbers.to(kind.dtype), "weight_scale": scale}, numbers * scale
    numbers, scale = kind.round_weights(weight.unflatten(-1, (-1, GROUP)))
    nibbles = (numbers.flatten(-2) + 8).to(torch.int64).unflatten(-1, (-1, 8))
    packed = (nibbles << torch.arange(0, 32, 4)).sum(-1)
    tensors = {
        "weight_packed": packed.to(torch.uint32).view(torch.int32),
        "weight_scale": scale.squeeze(-1),
        "weight_shape": torch.tensor(weight.shape),
    }
    return tensors, (numbers * scale).flatten(-2)


def quantise(plain: nn.Module, folder: Path, kind: Format) -> None:
    """Give a saved model's linear layers a format, and the model itself what they stand for."""
    tensors = load_file(folder / WEIGHTS)
    for path, layer in linear_layers(plain):
        parts, stood_for = compressed(tensors.pop(f"{path}.weight"), kind)
        tensors |= {f"{path}.{name}": part.contiguous() for name, part in parts.items()}
        layer.weight.data = stood_for
        if kind.round_inputs:
            layer.register_forward_pre_hook(partial(rounded, kind.round_inputs))
    save_file(tensors, folder / WEIGHTS)
    config = json.loads((folder / CONFIG).read_text())
    config["quantization_config"] = kind.described()
    (folder / CONFIG).write_text(json.dumps(config))


def rounded(rounding: Rounding, _: nn.Module, given: tuple[torch.Tensor]) -> torch.Tensor:
    numbers, scale = rounding(given[0])
    return numbers * scale


def linear_layers(plain: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for path, layer in plain.named_modules():
        if isinstance(layer, nn.Linear) and path != "lm_head":
            yield path, layer


def has_four_bits() -> bool:
    """Whether this build of vLLM can multiply by weights of four bits: not without AVX-512."""
    from vllm import _custom_ops  # noqa: F401  # it registers the kernels

    return hasattr(torch.ops._C, "cpu_gemm_wna16")


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [("w4a16", "bfloat16", 3e-2), ("w8a8", "float32", 1e-2), ("fp8", "float32", 5e-2)],
)
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_a_quantised_checkpoint_is_seen_as_its_layers_compute(
    name, kind, dtype, tolerance, tmp_path
):
    """An input of eight bits that is half-way may round the other way, which is a visible step.

    The kernel for four bits knows half-precision inputs only.
    """
    if kind == "w4a16" and not has_four_bits():
        pytest.skip("this build of vLLM has no kernel for four bits")
    plain = sharing.plain_model(sharing.CONFIGS[name]())
    plain.save_pretrained(tmp_path)
    quantise(plain, tmp_path, FORMATS[kind])
    _, shared = sharing.load_shared(tmp_path, dtype)
    texts = sharing.texts_of(14, 5)
    found = load(shared.inspect(texts, list(range(sharing.DEPTH + 1)), "bands"))
    for i, text in enumerate(texts):
        for field, values in sharing.expected(plain, text).items():
            if field != "attention_maps":
                difference = (found[f"{i}.{field}"] - values).abs().max()
                assert difference <= tolerance * values.abs().max(), (i, field, difference)
