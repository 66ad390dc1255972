"""What runs inside the engine's worker at each step: exact statistics of every distribution.

A logits processor knows which request each row belongs to, and changes nothing but what an early
stop needs; a worker extension hands what was kept to the client, once a request. Both live in the
worker process and meet in `RECORDER`.

The processors are given to the engine by name and never registered as entry points: the loader of
vLLM's V2 runner refuses classes of the V1 interface, so a registered one would break every engine
in the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from uq_llm_integrations.backends.token_statistics_torch import warm_up
from uq_llm_integrations.backends.vllm.worker import compat
from uq_llm_integrations.backends.vllm.worker.early_stop import EARLY_STOPPER, Rule
from uq_llm_integrations.backends.vllm.worker.extra_args import read_keys
from uq_llm_integrations.backends.vllm.worker.recorder import RECORDER, Row
from uq_llm_integrations.errors import reason

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate
    from vllm.v1.worker.gpu.sample.logits_processor.interface import (
        LogitsContext,
        LogitsProcRequestState,
    )
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    from uq_llm_integrations.backends.vllm.worker.shared_model import SharedModel

_V1LogitsProcessor: Any = compat.v1_logits_processor()
_V2LogitsProcessor: Any = compat.v2_logits_processor()


@dataclass(frozen=True)
class Observation:
    """What the probe observes of a request."""

    request: str
    has_grammar: bool
    rule: Rule | None
    tokens: tuple[str, list[int]] | None
    keeps_tokens: bool
    """Whether the log-probabilities of its tokens are kept here, as the engine returns none."""

    @classmethod
    def of(cls, params: SamplingParams) -> Observation | None:
        """Read what the client has put into the sampling parameters."""
        keys = read_keys(params.extra_args)
        if keys is None or keys.request is None:
            return None
        return cls(
            keys.request,
            has_grammar=params.structured_outputs is not None,
            rule=keys.rule,
            tokens=keys.tokens,
            keeps_tokens=params.logprobs is None,
        )


ObservedRow = tuple[int, Observation, int]
"""A row of the batch, what is observed of it, and the index of the token to be sampled from it."""


def _record(logits: torch.Tensor, rows: list[ObservedRow]) -> torch.Tensor:
    """Record rows, which are sorted, and return what was recorded."""
    table = RECORDER.observe(
        logits,
        [(row, one.request, index) for row, one, index in rows],
        has_forbidden=any(one.has_grammar for _, one, _ in rows),
        keeps_tokens=any(one.keeps_tokens for _, one, _ in rows),
    )
    for row, one, _ in rows:
        if one.tokens and max(one.tokens[1]) < logits.shape[-1]:
            RECORDER.keep_tokens(one.tokens[0], logits[row], one.tokens[1])
    return table


def _stop(logits: torch.Tensor, table: torch.Tensor, rows: list[ObservedRow]) -> None:
    """Stop what must stop by what was recorded of its row."""
    named = [(row, one.request, index) for row, one, index in rows]
    size = logits.shape[-1]
    rules = {one.request: one.rule for _, one, _ in rows if one.rule and one.rule[3] < size}
    EARLY_STOPPER.apply(logits, table, named, rules)


class SamplerTap:
    """Records what one V1 model runner's sampler computes, before anything changes it.

    The statistics are of the very distributions that the engine's log-probabilities come from, and
    those of the sampled tokens need not be sent through the engine at each step, which would slow
    it down.
    """

    def __init__(self) -> None:
        self._runner: GPUModelRunner | None = None
        self._prompts: Iterator[compat.PromptPart] | None = None
        self.see: Callable[[torch.Tensor], None] | None = None
        """What records the logits of each step."""

    @property
    def is_attached(self) -> bool:
        """Whether steps are seen here."""
        return self._runner is not None

    def attach(self, runner: GPUModelRunner) -> bool:
        """Observe a runner's sampler; False where it is another one than vLLM's V1 runner has."""
        if self._runner is not runner:
            if self.see is None or not compat.observe_sampler(runner, self):
                return False
            self._runner = runner
        return True

    def see_logits(self, logits: torch.Tensor) -> None:
        """Record the logits of a step."""
        if self.see:
            self.see(logits)

    def see_samples(self, token_ids: torch.Tensor) -> None:
        """Record the tokens sampled in a step."""
        RECORDER.keep_samples(token_ids)

    def see_prompts(self, prompts: Iterable[compat.PromptPart] | None) -> None:
        """Expect the logits of these parts of prompts, or none any more."""
        self._prompts = None if prompts is None else iter(prompts)

    def see_prompt_logits(self, logits: torch.Tensor) -> None:
        """Record the logits of the next part of a prompt, where one is expected."""
        if self._prompts is not None:
            RECORDER.observe(logits, _prompt_rows(next(self._prompts)), has_forbidden=False)


def _prompt_rows(part: compat.PromptPart) -> list[Row]:
    keys = read_keys(part.params.extra_args)
    if keys is None or keys.score is None:
        return []
    request, first = keys.score
    indices = (part.start + row + 1 - first for row in range(part.rows))
    return [(row, request, index) for row, index in enumerate(indices) if index >= 0]


TAP = SamplerTap()


class V1Probe(_V1LogitsProcessor):
    """The probe for the V1 model runner."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, tuple[Observation, list[int]]] = {}
        self._seen: tuple[torch.Tensor, list[ObservedRow]] | None = None
        TAP.see = self.see

    def is_argmax_invariant(self) -> bool:
        """Return False: vLLM skips invariant processors for greedy batches."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests as they enter, leave and move within the batch."""
        compat.follow_batch(self._rows, batch_update, _with_output)

    def see(self, logits: torch.Tensor) -> None:
        """Record the rows that are observed; the token sampled next is the len(output)-th."""
        rows = [
            (row, observation, len(output))
            for row, (observation, output) in sorted(self._rows.items())
            if row < len(logits)
        ]
        self._seen = _record(logits, rows), rows

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
) -> tuple[Observation, list[int]] | None:
    observation = Observation.of(params)
    return (observation, output_ids) if observation else None


class V2Probe(_V2LogitsProcessor):
    """The probe for the V2 model runner."""

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        self._states = req_states
        self._requests: dict[int, Observation | None] = {}

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Observe a slot; True makes vLLM call `apply` although nothing is changed."""
        self._requests[req_idx] = Observation.of(sampling_params)
        return self._requests[req_idx] is not None

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Record the rows that are observed, but those within the prompt, and stop what must."""
        rows = [row for row in compat.v2_rows(ctx, self._states, self._requests) if row[2] >= 0]
        _stop(logits, _record(logits, rows), rows)
        return logits


class ProbeExtension:
    """The worker extension: methods that the client calls by the names in `protocol`."""

    model_runner: GPUModelRunner
    vllm_config: VllmConfig
    uq_shared: SharedModel

    def uq_attach(self) -> bool:
        """Observe logits where the engine takes its log-probabilities; False where that fails."""
        config = self.vllm_config.model_config
        warm_up(config.get_vocab_size(), config.dtype, self.model_runner.device)
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

        model = compat.model_of(self.model_runner)
        try:
            self.uq_shared = SharedModel(model, self.vllm_config, self.model_runner.device)
        except Exception as error:  # whatever a definition may raise that was not made for this
            return f"transformers' definition does not fit on vLLM's layers: {reason(error)}"
        return None

    def uq_inspect(self, texts: list[list[int]], layers: list[int], attention: str | None) -> bytes:
        """Return what is inside the model at the tokens of some texts, see `SharedModel`."""
        return self.uq_shared.inspect(texts, layers, attention)
