"""Every reach into vLLM's inside that is made in vLLM's own processes, one function each.

The reaches that are made in the client's process are in `client_compat`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from uq_llm_integrations.backends.reaches import reach

if TYPE_CHECKING:
    import torch
    from torch import nn
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate
    from vllm.v1.worker.gpu.sample.logits_processor.interface import (
        LogitsContext,
        LogitsProcRequestState,
    )
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

T = TypeVar("T")

_SAMPLER = "vllm.v1.sample.sampler:Sampler"
_V1_RUNNER = "vllm.v1.worker.gpu_model_runner:GPUModelRunner"
_V1_REQUEST = "vllm.v1.worker.gpu_input_batch:CachedRequestState"
_V1 = "vllm.v1.sample.logits_processor"
_V2 = "vllm.v1.worker.gpu.sample.logits_processor.interface"


# Logits processors.


@reach(
    f"{_V1}:LogitsProcessor(vllm_config, device, is_pin_memory)",
    f"{_V1}:LogitsProcessor.is_argmax_invariant()",
    f"{_V1}:LogitsProcessor.update_state(batch_update)",
    f"{_V1}:LogitsProcessor.apply(logits)",
)
def v1_logits_processor() -> Any:
    """Return the interface for the V1 model runner: row i belongs to the i-th request."""
    from vllm.v1.sample.logits_processor import LogitsProcessor

    return LogitsProcessor


@reach(f"{_V1}:process_dict_updates(req_entries, batch_update, new_state)")
def follow_batch(
    entries: dict[int, T],
    update: BatchUpdate | None,
    new_entry: Callable[[SamplingParams, list[int] | None, list[int]], T | None],
) -> None:
    """Follow requests as they enter, leave and move within the V1 batch."""
    from vllm.v1.sample.logits_processor import process_dict_updates

    process_dict_updates(entries, update, new_entry)


@reach(
    f"{_V2}:LogitsProcessor(vllm_config, req_states)",
    f"{_V2}:LogitsProcessor.add_request(req_idx, sampling_params)",
    f"{_V2}:LogitsProcessor.apply(logits, ctx)",
)
def v2_logits_processor() -> Any:
    """Return the interface for the V2 model runner: rows are named by slot at every step."""
    from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor

    return LogitsProcessor


@reach(
    f"{_V2}:LogitsContext.idx_mapping_np",
    f"{_V2}:LogitsContext.seq_lens_upper_bound_np",
    f"{_V2}:LogitsProcRequestState.prompt_len",
)
def v2_rows(
    context: LogitsContext, states: LogitsProcRequestState, requests: Mapping[int, T | None]
) -> Iterator[tuple[int, T, int]]:
    """Yield row, request and index of the token to be sampled, for slots that have a request.

    The index of a row within the prompt is below zero.
    """
    for row, slot in enumerate(context.idx_mapping_np.tolist()):
        if request := requests.get(slot):
            length = context.seq_lens_upper_bound_np[row] - states.prompt_len.np[slot]
            yield row, request, int(length)


# The V1 model runner and its sampler.


class SamplerObserver(Protocol):
    """What sees the V1 sampler at work."""

    def see_logits(self, logits: torch.Tensor) -> None:
        """Look at a step's logits, which nothing has changed yet."""

    def see_samples(self, token_ids: torch.Tensor) -> None:
        """Look at the tokens sampled in a step, [batch]."""

    def see_prompts(self, prompts: Iterable[PromptPart] | None) -> None:
        """Expect the logits of these parts of prompts in this order, None once they have passed."""

    def see_prompt_logits(self, logits: torch.Tensor) -> None:
        """Look at the logits of the next part of a prompt, or of a step if none is expected."""


class PromptPart(NamedTuple):
    """A part of a prompt: its row i is the distribution of token `start` + i + 1."""

    start: int
    rows: int
    params: SamplingParams


@reach(
    f"{_V1_RUNNER}.sampler",
    f"{_V1_RUNNER}._get_prompt_logprobs_dict(hidden_states, num_scheduled_tokens)",
    f"{_SAMPLER}.compute_logprobs(logits)",
    f"{_SAMPLER}.apply_logits_processors(logits)",
    f"{_SAMPLER}.sample(logits)",
)
def observe_sampler(runner: GPUModelRunner, observer: SamplerObserver) -> bool:
    """Stand in for functions of a V1 runner's sampler; False where the runner has none of them.

    The logits that the sampler gives to its processors are those that its log-probabilities are
    taken of.
    """
    sampler = getattr(runner, "sampler", None)
    score_prompts = getattr(runner, "_get_prompt_logprobs_dict", None)
    names = ("compute_logprobs", "apply_logits_processors", "sample")
    functions: list[Any] = [getattr(sampler, name, None) for name in names]
    if sampler is None or None in functions or score_prompts is None:
        return False
    compute, process, sample = functions

    def compute_logprobs(logits: torch.Tensor) -> torch.Tensor:
        observer.see_prompt_logits(logits)
        logprobs: torch.Tensor = compute(logits)
        return logprobs

    def apply_logits_processors(
        logits: torch.Tensor, *others: object, **options: object
    ) -> torch.Tensor:
        observer.see_logits(logits)
        changed: torch.Tensor = process(logits, *others, **options)
        return changed

    def sample_tokens(*arguments: object, **options: object) -> object:
        sampled = sample(*arguments, **options)
        observer.see_samples(sampled[0])
        return sampled

    def get_prompt_logprobs(hidden_states: torch.Tensor, scheduled: dict[str, int]) -> object:
        observer.see_prompts(list(prompt_parts(runner, scheduled)))
        try:
            return score_prompts(hidden_states, scheduled)
        finally:
            observer.see_prompts(None)

    sampler.compute_logprobs = compute_logprobs
    sampler.apply_logits_processors = apply_logits_processors
    sampler.sample = sample_tokens
    runner._get_prompt_logprobs_dict = get_prompt_logprobs
    return True


@reach(
    f"{_V1_RUNNER}.num_prompt_logprobs",
    f"{_V1_RUNNER}.requests",
    f"{_V1_REQUEST}.prompt_token_ids",
    f"{_V1_REQUEST}.num_computed_tokens",
    f"{_V1_REQUEST}.sampling_params",
)
def prompt_parts(runner: GPUModelRunner, scheduled: Mapping[str, int]) -> Iterator[PromptPart]:
    """Yield the parts of prompts whose logits a step computes, in the order in which it does."""
    for name in runner.num_prompt_logprobs:
        request = runner.requests[name]
        if name not in scheduled or request.prompt_token_ids is None:
            continue
        start = request.num_computed_tokens
        rows = min(scheduled[name], len(request.prompt_token_ids) - start - 1)
        if rows > 0:
            yield PromptPart(start, rows, request.sampling_params)


# The model and its layers.


@reach(f"{_V1_RUNNER}.get_model()", "vllm.v1.worker.gpu.model_runner:GPUModelRunner.get_model()")
def model_of(runner: GPUModelRunner) -> nn.Module:
    """Return the model that a runner of either version runs."""
    return runner.get_model()


@reach("vllm.forward_context:set_forward_context(attn_metadata, vllm_config, num_tokens)")
def forward_context(config: VllmConfig, tokens: int) -> AbstractContextManager[None]:
    """Return the context that vLLM's layers want to compute in, without its attention."""
    from vllm.forward_context import set_forward_context

    context: AbstractContextManager[None] = set_forward_context(None, config, num_tokens=tokens)
    return context


@reach("vllm.model_executor.models.interfaces_base:VllmModelForTextGeneration.compute_logits")
def compute_logits(model: nn.Module, states: torch.Tensor) -> torch.Tensor:
    """Return the logits [rows, vocabulary] of last hidden states."""
    logits: torch.Tensor = model.compute_logits(states)
    return logits


class Layout(NamedTuple):
    """How a model of vLLM's is laid out, against its checkpoint."""

    fused: Mapping[str, list[str]]
    """The parts that each fused layer is made of."""
    map_name: Callable[[str], str | None]
    """From a name in the checkpoint to the name in vLLM, fused layers aside."""


@reach(
    "vllm.model_executor.models.interfaces:SupportsQuant.packed_modules_mapping",
    "vllm.model_executor.models.interfaces:SupportsQuant.hf_to_vllm_mapper",
    "vllm.model_executor.models.utils:WeightsMapper.map_name(key)",
    "vllm.model_executor.models.utils:WeightsMapper(orig_to_new_stacked)",
)
def layout_of(model: nn.Module) -> Layout:
    """Return the layout of a model."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    map_name = replace(mapper, orig_to_new_stacked={}).map_name if mapper else _same
    return Layout(dict(getattr(model, "packed_modules_mapping", {})), map_name)


def _same(name: str) -> str | None:
    return name


@reach(
    "vllm.model_executor.layers.linear:LinearBase.output_size",
    "vllm.model_executor.layers.linear:ColumnParallelLinear.output_partition_sizes",
)
def output_sizes(layer: nn.Module | None) -> list[int] | None:
    """Return how many values each part of a linear layer gives, None for what is none."""
    from vllm.model_executor.layers.linear import LinearBase

    if not isinstance(layer, LinearBase):
        return None
    return list(getattr(layer, "output_partition_sizes", [layer.output_size]))


@reach("vllm.model_executor.layers.vocab_parallel_embedding:VocabParallelEmbedding")
def has_padded_rows(module: nn.Module | None) -> bool:
    """Whether a module's weight has rows beyond the vocabulary."""
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    return isinstance(module, VocabParallelEmbedding)
