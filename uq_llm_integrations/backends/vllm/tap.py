"""Where the worker takes the log-probabilities from that the engine computes anyway.

vLLM's V1 sampler computes the log-probabilities of all rows, before any processor has changed the
logits, and of the prompt's rows where `prompt_logprobs` are asked for, all by one function of its
own. The tap stands in for that function: nothing is computed twice, and the statistics are of the
very numbers that the engine returns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from uq_llm_integrations.backends.vllm.recorder import RECORDER, Row
from uq_llm_integrations.backends.vllm.start import SCORE_KEY


class LogprobTap:
    """Stands in for `compute_logprobs` of one V1 model runner's sampler."""

    def __init__(self) -> None:
        self._runner: Any = None
        self._step: torch.Tensor | None = None
        self._prompts: Iterator[list[Row]] | None = None

    def attach(self, runner: Any) -> bool:
        """Stand in for the runner's function; False where it has none of this name."""
        if self._runner is runner:
            return True
        sampler = getattr(runner, "sampler", None)
        score_prompts = getattr(runner, "_get_prompt_logprobs_dict", None)
        compute = getattr(sampler, "compute_logprobs", None)
        if sampler is None or compute is None or score_prompts is None:
            return False

        def watch(logits: torch.Tensor) -> torch.Tensor:
            logprobs: torch.Tensor = compute(logits)
            self._see(logprobs)
            return logprobs

        def score(hidden_states: Any, scheduled: dict[str, int]) -> Any:
            self._prompts = iter(list(_prompt_rows(runner, scheduled)))
            try:
                return score_prompts(hidden_states, scheduled)
            finally:
                self._prompts = None

        sampler.compute_logprobs = watch
        runner._get_prompt_logprobs_dict = score
        self._runner = runner
        return True

    def take(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of this step's rows, computed here where vLLM did not."""
        logprobs, self._step = self._step, None
        if logprobs is None or logprobs.shape != logits.shape:
            return logits.log_softmax(-1, dtype=torch.float32)
        return logprobs

    def _see(self, logprobs: torch.Tensor) -> None:
        if self._prompts is None:
            self._step = logprobs
        else:
            RECORDER.observe(logprobs, next(self._prompts), has_forbidden=False)


def _prompt_rows(runner: Any, scheduled: dict[str, int]) -> Iterator[list[Row]]:
    """Yield the rows of each prompt in the order in which vLLM computes them.

    Row i of a prompt's part that starts at token s is the distribution of token s + i + 1.
    """
    for name in runner.num_prompt_logprobs:
        request = runner.requests[name]
        if name not in scheduled or request.prompt_token_ids is None:
            continue
        start = request.num_computed_tokens
        rows = min(scheduled[name], len(request.prompt_token_ids) - start - 1)
        if rows <= 0:
            continue
        wanted = (request.sampling_params.extra_args or {}).get(SCORE_KEY)
        if wanted is None:
            yield []
            continue
        request_name, first = wanted
        places = (start + row + 1 - first for row in range(rows))
        yield [(row, request_name, place) for row, place in enumerate(places) if place >= 0]


TAP = LogprobTap()
