"""Where the worker sees logits that nothing has changed yet, and the tokens drawn from them.

The logits that vLLM's V1 sampler gives to its processors are those that its log-probabilities are
taken of. The tap looks at them, at the tokens that are drawn, and at the logits of prompts where
`prompt_logprobs` are asked for, by standing in for the sampler's own functions. So the statistics
are of the very distributions that the engine's log-probabilities come from, and those of the tokens
need not be sent through the engine at each step, which would slow it down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from uq_llm_integrations.backends.vllm.launch import SCORE_KEY
from uq_llm_integrations.backends.vllm.worker.recorder import RECORDER, Row


class SamplerTap:
    """Stands in for functions of one V1 model runner's sampler."""

    def __init__(self) -> None:
        self._runner: Any = None
        self._prompts: Iterator[list[Row]] | None = None
        self.see: Callable[[torch.Tensor], None] | None = None
        """Who is shown the logits of each step."""

    @property
    def is_attached(self) -> bool:
        """Whether steps are seen here."""
        return self._runner is not None

    def attach(self, runner: Any) -> bool:
        """Stand in for the functions; False where the runner has none of these names."""
        if self._runner is runner:
            return True
        sampler = getattr(runner, "sampler", None)
        score_prompts = getattr(runner, "_get_prompt_logprobs_dict", None)
        names = ("compute_logprobs", "apply_logits_processors", "sample")
        functions: list[Any] = [getattr(sampler, name, None) for name in names]
        see, (compute, process, sample) = self.see, functions
        if sampler is None or None in functions or score_prompts is None or see is None:
            return False

        def watch(logits: torch.Tensor) -> torch.Tensor:
            if self._prompts is not None:
                RECORDER.observe(logits, next(self._prompts), has_forbidden=False)
            logprobs: torch.Tensor = compute(logits)
            return logprobs

        def change(logits: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
            see(logits)
            changed: torch.Tensor = process(logits, *arguments, **options)
            return changed

        def draw(*arguments: Any, **options: Any) -> Any:
            drawn = sample(*arguments, **options)
            RECORDER.draw(drawn[0])
            return drawn

        def score(hidden_states: Any, scheduled: dict[str, int]) -> Any:
            self._prompts = iter(list(_prompt_rows(runner, scheduled)))
            try:
                return score_prompts(hidden_states, scheduled)
            finally:
                self._prompts = None

        sampler.compute_logprobs, sampler.apply_logits_processors = watch, change
        sampler.sample, runner._get_prompt_logprobs_dict = draw, score
        self._runner = runner
        return True


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


TAP = SamplerTap()
