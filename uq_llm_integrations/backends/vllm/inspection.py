"""Hidden states and attention of a running engine's model: in batches, and checked once.

The forward pass itself is in `worker.shared_model`. Each batch is one call, and between two calls
the engine goes on with its requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from uq_llm_integrations.backends.base import layer_numbers
from uq_llm_integrations.backends.batching import TOKENS_AT_ONCE, in_batches
from uq_llm_integrations.backends.capabilities import check_text
from uq_llm_integrations.backends.vllm.worker.protocol import INSPECT, SHARE, WORKER_EXTENSION
from uq_llm_integrations.errors import (
    EngineDeadError,
    EngineError,
    EngineTimeoutError,
    MethodUnavailableError,
)
from uq_llm_integrations.records import Activations, Candidate, Inspection, Singles

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig

    from uq_llm_integrations.backends.vllm.process import EngineProcess

Ids = tuple[int, ...]

WEIGHTS_AT_ONCE = 1 << 26
"""The most attention weights that a batch may keep or compute at a time: 256 MiB of them."""

TOLERANCES = {"float32": 1e-3}
"""How far the shared pass may be from the engine itself, in nats, on average over the tokens."""

GPU_TOLERANCES = {"float32": 1e-2}
"""The same on a GPU, where vLLM's attention in float32 is a Triton kernel whose products have the
ten bits of TF32: 0.0015 nats were seen on SmolLM2."""

OTHER_TOLERANCE = 0.1
"""The same for other types."""

QUANTISED_TOLERANCE = 0.5
"""The same for quantised checkpoints. Where layers round their inputs to eight bits, the last bit
of a float32 decides which way: one part in ten million at the embedding was seen to move the
log-probabilities of SmolLM2 in int8 by 0.2 nats on average, in plain transformers."""

PATIENCE = 10
"""How many deadlines a batch may take, during which the engine gives no sign of life. Where it dies
meanwhile, the error is raised at once."""

CHECK_TEXT = "The capital of France is Paris, and the capital of Germany is Berlin."

_ALONE = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


class OutOfDeviceMemory(Exception):  # noqa: N818  # it is no error where a smaller batch works
    """A batch was too large for what the engine leaves of the device's memory."""


def why_no_activations(arguments: Mapping[str, Any], process: EngineProcess | None) -> str | None:
    """Return why an engine cannot be inspected, None where it can as far as is known.

    It follows from the arguments before the engine runs, from its configuration afterwards.
    """
    if process is None:
        sizes = {name: arguments.get(name) or 1 for name in _ALONE}
        own = arguments.get("worker_extension_cls")
        return _why_not_parallel(sizes) or (own and "the engine has a worker extension of its own")
    return process.why_not_shared or _why_not_config(process.llm.vllm_config)


class InspectionPass:
    """Forward passes over texts in one engine, of which an `Inspection` says what is kept."""

    def __init__(
        self,
        process: EngineProcess,
        inspection: Inspection,
        score: Callable[[Ids, Ids], Awaitable[Candidate]],
        deadline: float,
    ) -> None:
        """`score` is the engine's own teacher forcing, which the pass is checked against once."""
        self._process, self._inspection = process, inspection
        self._score, self._deadline = score, deadline
        self._config: ModelConfig = process.llm.model_config
        self._depth: int = self._config.hf_text_config.num_hidden_layers
        self._numbers = layer_numbers(inspection, self._depth)

    async def activations(self, texts: Sequence[Ids]) -> list[Activations]:
        """Return the activations at each text's tokens, in the texts' order."""
        for text in texts:
            check_text(text, self._config.get_vocab_size(), self._config.max_model_len)
        await self._ensure_shared()

        async def run(batch: list[int]) -> list[Activations]:
            return await self._pass([texts[i] for i in batch])

        lengths = [len(text) for text in texts]
        return await in_batches(lengths, run, OutOfDeviceMemory, self._tokens_at_once(lengths))

    async def _pass(self, texts: Sequence[Ids]) -> list[Activations]:
        from safetensors.numpy import load

        numbers = sorted(set(self._numbers.values()))
        arguments = ([list(text) for text in texts], numbers, self._inspection.attention)
        data = await self._process.call_worker(
            INSPECT, *arguments, deadline=self._deadline, patience=PATIENCE
        )
        if not data:
            raise OutOfDeviceMemory
        arrays = load(data)
        return [self._read(arrays, i) for i in range(len(texts))]

    def _read(self, arrays: Mapping[str, Singles], i: int) -> Activations:
        hidden = {layer: arrays[f"{i}.hidden.{n}"] for layer, n in self._numbers.items()}
        names = ("attention_self", "attention_last", "attention_maps")
        attention = {name: arrays[key] for name in names if (key := f"{i}.{name}") in arrays}
        return Activations(arrays[f"{i}.logprob"], hidden, **attention)

    def _tokens_at_once(self, lengths: Sequence[int]) -> int:
        """Return how many tokens a batch may have, so that its attention weights fit as well."""
        heads: int = self._config.hf_text_config.num_attention_heads
        layers = self._depth if self._inspection.attention == "maps" else 1
        return min(TOKENS_AT_ONCE, WEIGHTS_AT_ONCE // (layers * heads * max(lengths, default=1)))

    async def _ensure_shared(self) -> None:
        """Build the pass and compare it with the engine, once for all who use the engine."""
        process = self._process
        if process.sharing is None:
            process.sharing = asyncio.create_task(self._share())
            process.sharing.add_done_callback(lambda task: _forget_failure(process, task))
        await asyncio.shield(process.sharing)
        if why := why_no_activations({}, process):
            raise MethodUnavailableError(f"{self._config.model} cannot be inspected: {why}")

    async def _share(self) -> None:
        process = self._process
        why = why_no_activations({}, process)
        why = why or await process.call_worker(SHARE, deadline=self._deadline)
        process.why_not_shared = why or await self._why_not_same()

    async def _why_not_same(self) -> str | None:
        ids = tuple(self._process.llm.get_tokenizer().encode(CHECK_TEXT))
        ids = ids[: self._config.max_model_len - 1]
        expected = (await self._score(ids[:1], ids[1:])).trace.logprob
        every = Inspection((*range(self._depth + 1),), "bands")
        one_pass = InspectionPass(self._process, every, self._score, self._deadline)
        try:
            (found,) = await one_pass._pass([ids])
        except (EngineDeadError, EngineTimeoutError):
            raise
        except EngineError as error:
            return f"the pass on the engine's layers fails: {error}"
        difference = float(np.abs(found.logprob - expected).mean())
        device = str(self._process.llm.vllm_config.device_config.device_type)
        kind, allowed = tolerance(self._config, device)
        if difference <= allowed:  # False for a difference that is not a number
            return None
        return (
            f"on its layers, transformers' definition of {self._config.architecture} gives other "
            f"log-probabilities than vLLM, by {difference:.2g} nats on average; up to {allowed} "
            f"would be rounding in {kind}"
        )


def tolerance(config: ModelConfig, device: str) -> tuple[str, float]:
    """Return what the engine computes in, and how far from it may be taken for rounding."""
    if config.quantization:
        return str(config.quantization), QUANTISED_TOLERANCE
    dtype = str(config.dtype).removeprefix("torch.")
    tolerances = TOLERANCES if device == "cpu" else GPU_TOLERANCES
    return dtype, tolerances.get(dtype, OTHER_TOLERANCE)


def _forget_failure(process: EngineProcess, task: asyncio.Task[None]) -> None:
    """Let the next caller try again where the check itself failed, rather than its outcome."""
    if task.cancelled() or task.exception():
        process.sharing = None


def _why_not_config(config: VllmConfig) -> str | None:
    if config.model_config.is_encoder_decoder:
        return "it is an encoder and a decoder"
    if config.model_config.is_multimodal_model:
        return "it takes more than text"
    if config.lora_config is not None:
        return "the engine has LoRA adapters, which wrap its layers"
    if config.parallel_config.worker_extension_cls != WORKER_EXTENSION:
        return "the engine was started without the worker extension of this package"
    return _why_not_parallel({name: getattr(config.parallel_config, name) for name in _ALONE})


def _why_not_parallel(sizes: Mapping[str, int]) -> str | None:
    for name, size in sizes.items():
        if size > 1:
            return f"{name} is {size}, and each worker holds only its part of the model"
    return None
