"""What runs inside the engine's worker at each step: exact statistics of every distribution.

A logits processor that changes nothing sees each row's logits; a worker extension hands what it
kept to the client, once a request. Both live in the worker process and meet in `RECORDER`.

The processors are given to the engine by name and never registered as entry points: the loader of
vLLM's V2 runner refuses classes of the V1 interface, so a registered one would break every engine
in the environment.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, process_dict_updates
from vllm.v1.sample.logits_processor import LogitsProcessor as V1LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsProcessor as V2LogitsProcessor,
)

from uq_llm_integrations.backends.vllm_start import REQUEST_KEY

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.worker.gpu.sample.logits_processor.interface import (
        LogitsContext,
        LogitsProcRequestState,
    )

Row = tuple[int, str, int]
"""A row of the logits, the request that it belongs to, the place of the token it is drawn for."""

# A log-probability below this counts as that of a forbidden token.
_FORBIDDEN = -1e4

# Elements worked on at a time: what fits a core's cache on the CPU, 64 MiB on other devices.
_CHUNK = {"cpu": 1 << 18}
_CHUNK_ELSEWHERE = 1 << 24

_BLOCK = 512


def row_statistics(logits: torch.Tensor, *, has_forbidden: bool = False) -> torch.Tensor:
    """Return the sums named in `COLUMNS`, float64 [rows, 6].

    `has_forbidden` says that a grammar has set some logits to -inf.
    """
    rows_at_once = max(1, _CHUNK.get(logits.device.type, _CHUNK_ELSEWHERE) // logits.shape[-1])
    chunks = [_chunk_statistics(chunk, has_forbidden) for chunk in logits.split(rows_at_once)]
    return torch.cat(chunks)


def _chunk_statistics(logits: torch.Tensor, has_forbidden: bool) -> torch.Tensor:
    # The very call by which vLLM gets its log-probabilities: both carry the same rounding.
    logs = logits.log_softmax(-1, dtype=torch.float32)
    if has_forbidden:
        allowed = logs > _FORBIDDEN
        support = allowed.sum(-1, dtype=torch.float64)
        plain = _total(torch.where(allowed, logs, 0.0))
        logs.clamp_(min=_FORBIDDEN)
    else:
        plain = _total(logs)
        support = torch.full_like(plain, logs.shape[-1])
    fourth_root = (logs * 0.25).exp_()
    root = fourth_root * fourth_root
    terms = (root * root).mul_(logs)
    negative_entropy = _total(terms)
    square = _total(terms.mul_(logs))
    sums = [negative_entropy, square, plain, _total(root), _total(fourth_root), support]
    return torch.stack(sums, -1)


def _total(terms: torch.Tensor) -> torch.Tensor:
    """Sum rows in float64, but blocks of them in float32: as exact, and much faster on the CPU."""
    blocks = terms.shape[-1] // _BLOCK
    body, rest = terms.split([blocks * _BLOCK, terms.shape[-1] - blocks * _BLOCK], -1)
    sums = body.unflatten(-1, (blocks, _BLOCK)).sum(-1)
    return sums.sum(-1, dtype=torch.float64) + rest.sum(-1, dtype=torch.float64)


class Recorder:
    """Keeps the statistics of unfinished requests on the device until the client takes them."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[int, tuple[torch.Tensor, int]]] = {}

    def observe(self, logits: torch.Tensor, rows: list[Row], *, has_forbidden: bool) -> None:
        """Keep the statistics of some rows. A row computed again replaces its first version."""
        if not rows:
            return
        if len(rows) < len(logits):
            logits = logits[[row for row, _, _ in rows]]
            rows = [(i, request, place) for i, (_, request, place) in enumerate(rows)]
        table = row_statistics(logits, has_forbidden=has_forbidden)
        for row, request, place in rows:
            self._kept.setdefault(request, {})[place] = (table, row)

    def take(self, requests: Iterable[str]) -> list[bytes]:
        """Forget some requests and return for each its float64 rows from token 0 on, unbroken."""
        return [self._rows(self._kept.pop(request, {})) for request in requests]

    @property
    def requests(self) -> list[str]:
        """The requests of which something is kept."""
        return list(self._kept)

    @staticmethod
    def _rows(kept: dict[int, tuple[torch.Tensor, int]]) -> bytes:
        unbroken = [kept[place] for place in range(len(kept)) if place in kept]
        if not unbroken or len(unbroken) < len(kept):
            return b""
        tables = [table for table, _ in unbroken]
        starts = accumulate((len(table) for table in tables), initial=0)
        indices = [start + row for start, (_, row) in zip(starts, unbroken, strict=False)]
        data: bytes = torch.cat(tables)[indices].cpu().numpy().tobytes()
        return data


RECORDER = Recorder()


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
        RECORDER.observe(logits, sorted(rows), has_forbidden=has_grammar)
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
        RECORDER.observe(logits, [r for r in rows if r[2] >= 0], has_forbidden=has_grammar)
        return logits


class ProbeReader:
    """The worker extension: methods that the client reaches through `collective_rpc`."""

    def uq_take(self, requests: list[str]) -> list[bytes]:
        """Return and forget what was recorded for some requests."""
        return RECORDER.take(requests)

    def uq_recorded(self) -> list[str]:
        """Return the requests of which something is kept."""
        return RECORDER.requests


def probe_name(use_v2_model_runner: bool) -> str:
    """Return the name by which an engine loads the probe for its model runner."""
    return f"{__name__}:{(V2Probe if use_v2_model_runner else V1Probe).__name__}"
