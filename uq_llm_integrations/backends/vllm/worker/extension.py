"""What runs inside the engine's worker at each step: exact statistics of every distribution.

A logits processor knows which request each row belongs to, and changes nothing but what an early
stop asks for; a worker extension hands what was kept to the client, once a request. Both live in
the worker process and meet in `RECORDER`.

The processors are given to the engine by name and never registered as entry points: the loader of
vLLM's V2 runner refuses classes of the V1 interface, so a registered one would break every engine
in the environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, process_dict_updates
from vllm.v1.sample.logits_processor import LogitsProcessor as V1LogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor.interface import (
    LogitsProcessor as V2LogitsProcessor,
)

from uq_llm_integrations.backends.token_statistics_torch import warm_up
from uq_llm_integrations.backends.vllm.launch import REQUEST_KEY, STOP_KEY, TOKENS_KEY
from uq_llm_integrations.backends.vllm.worker.early_stop import EARLY_STOPPER, Rule
from uq_llm_integrations.backends.vllm.worker.recorder import RECORDER
from uq_llm_integrations.backends.vllm.worker.tap import TAP

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.worker.gpu.sample.logits_processor.interface import (
        LogitsContext,
        LogitsProcRequestState,
    )

    from uq_llm_integrations.backends.vllm.worker.shared_model import SharedModel


@dataclass(frozen=True)
class Watched:
    """What the probe is asked to do for a request."""

    request: str
    has_grammar: bool
    rule: Rule | None
    tokens: tuple[str, list[int]] | None
    keeps_tokens: bool
    """Whether the log-probabilities of its tokens are kept here, as nobody asks the engine."""

    @classmethod
    def of(cls, params: SamplingParams) -> Watched | None:
        """Read what the client has put into the sampling parameters."""
        extra = params.extra_args or {}
        if REQUEST_KEY not in extra:
            return None
        rule = extra.get(STOP_KEY)
        return cls(
            extra[REQUEST_KEY],
            has_grammar=params.structured_outputs is not None,
            rule=rule and tuple(rule),
            tokens=extra.get(TOKENS_KEY),
            keeps_tokens=params.logprobs is None,
        )


WatchedRow = tuple[int, Watched, int]
"""A row of the batch, what is asked of it, and the place of the token it is drawn for."""


def _observe(logits: torch.Tensor, rows: list[WatchedRow]) -> torch.Tensor:
    """Record rows, which are sorted, and return what was recorded."""
    table = RECORDER.observe(
        logits,
        [(row, watched.request, place) for row, watched, place in rows],
        has_forbidden=any(watched.has_grammar for _, watched, _ in rows),
        keeps_tokens=any(watched.keeps_tokens for _, watched, _ in rows),
    )
    for row, watched, _ in rows:
        if watched.tokens:
            RECORDER.keep_tokens(watched.tokens[0], logits[row], watched.tokens[1])
    return table


def _stop(logits: torch.Tensor, table: torch.Tensor, rows: list[WatchedRow]) -> None:
    """Stop what must stop by what was recorded of its row."""
    named = [(row, watched.request, place) for row, watched, place in rows]
    rules = {watched.request: watched.rule for _, watched, _ in rows if watched.rule}
    EARLY_STOPPER.apply(logits, table, named, rules)


class V1Probe(V1LogitsProcessor):
    """The probe for the V1 model runner: row i belongs to the i-th request of the batch."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[Watched, list[int]]] = {}
        self._seen: tuple[torch.Tensor, list[WatchedRow]] | None = None
        TAP.see = self.see

    def is_argmax_invariant(self) -> bool:
        """Return False: vLLM skips invariant processors for greedy batches."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as they enter, leave and move within the batch."""
        process_dict_updates(self._rows, batch_update, _with_output)

    def see(self, logits: torch.Tensor) -> None:
        """Record the rows that are watched; the token to be drawn next is the len(output)-th."""
        rows = [
            (row, watched, len(output))
            for row, (watched, output) in sorted(self._rows.items())
            if row < len(logits)
        ]
        self._seen = _observe(logits, rows), rows

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Stop what must stop; without the tap, these logits are the first that are seen."""
        if not TAP.is_attached:
            self.see(logits)
        if self._seen:
            _stop(logits, *self._seen)
            self._seen = None
        return logits


def _with_output(
    params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]
) -> tuple[Watched, list[int]] | None:
    watched = Watched.of(params)
    return (watched, output_ids) if watched else None


class V2Probe(V2LogitsProcessor):
    """The probe for the V2 model runner: rows are reordered at every step and named by slot."""

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        self._prompt_lengths = req_states.prompt_len
        self._requests: dict[int, Watched | None] = {}

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """SampleMonitor a slot; True makes vLLM call `apply` although nothing is changed."""
        self._requests[req_idx] = Watched.of(sampling_params)
        return self._requests[req_idx] is not None

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Record the rows that are watched; a row within the prompt has a place below zero."""
        rows = []
        for row, slot in enumerate(ctx.idx_mapping_np.tolist()):
            if watched := self._requests.get(slot):
                place = int(ctx.seq_lens_upper_bound_np[row] - self._prompt_lengths.np[slot])
                if place >= 0:
                    rows.append((row, watched, place))
        _stop(logits, _observe(logits, rows), rows)
        return logits


class ProbeReader:
    """The worker extension: methods that the client reaches through `collective_rpc`."""

    model_runner: Any
    vllm_config: VllmConfig
    uq_shared: SharedModel

    def uq_attach(self) -> bool:
        """Look at logits where the engine takes its log-probabilities; False where that fails."""
        if self.model_runner.device.type == "cpu":
            config = self.model_runner.model_config
            warm_up(config.get_vocab_size(), config.dtype)
        return TAP.attach(self.model_runner)

    def uq_take(self, requests: list[str]) -> list[bytes]:
        """Return and forget what was recorded for some requests."""
        EARLY_STOPPER.forget(requests)
        return RECORDER.take(requests)

    def uq_peek(self, request: str, first: int) -> bytes:
        """Return what was recorded for a request so far, from token `first` on."""
        return RECORDER.peek(request, first)

    def uq_recorded(self) -> list[str]:
        """Return the requests of which something is kept."""
        return RECORDER.requests

    def uq_share(self) -> str | None:
        """Build the pass that looks inside the model; where that cannot be, return the reason."""
        from uq_llm_integrations.backends.vllm.worker.shared_model import SharedModel

        runner = self.model_runner
        try:
            self.uq_shared = SharedModel(runner.get_model(), self.vllm_config, runner.device)
        except Exception as error:  # whatever a definition may raise that was not made for this
            return f"transformers' definition does not fit on vLLM's layers: {error}"
        return None

    def uq_inspect(self, texts: list[list[int]], layers: list[int], attention: str | None) -> bytes:
        """Return what is inside the model at the tokens of some texts, see `SharedModel`."""
        return self.uq_shared.inspect(texts, layers, attention)


def probe_name(use_v2_model_runner: bool) -> str:
    """Return the name by which an engine loads the probe for its model runner."""
    return f"{__name__}:{(V2Probe if use_v2_model_runner else V1Probe).__name__}"
