"""What runs inside the engine's worker at each step: exact statistics of every distribution.

A logits processor that changes nothing knows which request each row belongs to; a worker extension
hands what was kept to the client, once a request. Both live in the worker process and meet in
`RECORDER`.

The processors are given to the engine by name and never registered as entry points: the loader of
vLLM's V2 runner refuses classes of the V1 interface, so a registered one would break every engine
in the environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, process_dict_updates
from vllm.v1.sample.logits_processor import LogitsProcessor as V1LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsProcessor as V2LogitsProcessor,
)

from uq_llm_integrations.backends.vllm_recorder import RECORDER
from uq_llm_integrations.backends.vllm_start import REQUEST_KEY
from uq_llm_integrations.backends.vllm_tap import TAP

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.worker.gpu.sample.logits_processor.interface import (
        LogitsContext,
        LogitsProcRequestState,
    )

class V1Probe(V1LogitsProcessor):
    """The probe for the V1 model runner: row i belongs to the i-th request of the batch."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[str, list[int], bool]] = {}

    def is_argmax_invariant(self) -> bool:
        """Return False: vLLM skips invariant processors for greedy batches."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as they enter, leave and move within the batch."""
        process_dict_updates(self._rows, batch_update, _watched)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Record the rows that are watched; the token to be drawn next is the len(output)-th."""
        rows = [
            (row, request, len(output))
            for row, (request, output, _) in self._rows.items()
            if row < len(logits)
        ]
        has_grammar = any(grammar for _, _, grammar in self._rows.values())
        RECORDER.observe(TAP.take(logits), sorted(rows), has_forbidden=has_grammar)
        return logits


def _watched(
    params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]
) -> tuple[str, list[int], bool] | None:
    request = (params.extra_args or {}).get(REQUEST_KEY)
    return request and (request, output_ids, params.structured_outputs is not None)


class V2Probe(V2LogitsProcessor):
    """The probe for the V2 model runner: rows are reordered at every step and named by slot."""

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        self._prompt_lengths = req_states.prompt_len
        self._requests: dict[int, tuple[str, bool] | None] = {}

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Watch a slot; True makes vLLM call `apply` although nothing is changed."""
        request = (sampling_params.extra_args or {}).get(REQUEST_KEY)
        grammar = sampling_params.structured_outputs is not None
        self._requests[req_idx] = request and (request, grammar)
        return request is not None

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Record the rows that are watched; a row within the prompt has a place below zero."""
        rows, has_grammar = [], False
        for row, slot in enumerate(ctx.idx_mapping_np.tolist()):
            if watched := self._requests.get(slot):
                place = int(ctx.seq_lens_upper_bound_np[row] - self._prompt_lengths.np[slot])
                rows.append((row, watched[0], place))
                has_grammar |= watched[1]
        # The very call by which vLLM gets its log-probabilities.
        logprobs = logits.log_softmax(-1, dtype=torch.float32)
        RECORDER.observe(logprobs, [r for r in rows if r[2] >= 0], has_forbidden=has_grammar)
        return logits


class ProbeReader:
    """The worker extension: methods that the client reaches through `collective_rpc`."""

    model_runner: Any

    def uq_attach(self) -> bool:
        """Take the log-probabilities from the engine itself; False where it cannot be had."""
        return TAP.attach(self.model_runner)

    def uq_take(self, requests: list[str]) -> list[bytes]:
        """Return and forget what was recorded for some requests."""
        return RECORDER.take(requests)

    def uq_recorded(self) -> list[str]:
        """Return the requests of which something is kept."""
        return RECORDER.requests


def probe_name(use_v2_model_runner: bool) -> str:
    """Return the name by which an engine loads the probe for its model runner."""
    return f"{__name__}:{(V2Probe if use_v2_model_runner else V1Probe).__name__}"
