"""vLLM by itself, without this package's probe: what the benchmarks compare with."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from uq_llm_integrations.backends.event_loop import LoopThread
from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.backends.vllm.client_compat import models_inspected_here
from uq_llm_integrations.backends.vllm.launch import RESERVED_CORES
from uq_llm_integrations.checkpoints import resolve_model

# At import, so that bare vLLM's processes do it too: they import the benchmark again.
hide_mismatched_builds(from_vllm=True)

# As this package starts its engines: bare vLLM is measured on all cores, too.
os.environ.setdefault(RESERVED_CORES, "0")


def engine_args(**arguments: Any) -> dict[str, Any]:
    """Return the demo model's engine arguments; the benchmarks give all engines the same."""
    source = resolve_model("smollm2")
    source.prepare()
    common = {"max_model_len": 2048, "enable_prefix_caching": False, "disable_log_stats": True}
    return {**source.engine_args(), **common, "enable_chunked_prefill": False, **arguments}


def bare_llm() -> Any:
    """Return a `vllm.LLM` of the demo model."""
    import vllm

    with models_inspected_here():
        return vllm.LLM(**engine_args())


class BareAsyncLLM:
    """An AsyncLLM on a loop of its own."""

    def __init__(self, **arguments: Any) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.loop = LoopThread()

        async def start() -> AsyncLLM:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_args(**arguments)))

        with models_inspected_here():
            self.llm = self.loop.run(start())
        self._count = 0

    def generate(self, prompts: list[tuple[int, ...]], **sampling: Any) -> int:
        """Generate for all prompts at once and return how many tokens came."""
        return self.loop.run(self._generate(prompts, sampling))

    async def _generate(self, prompts: list[tuple[int, ...]], sampling: dict[str, Any]) -> int:
        return sum(await asyncio.gather(*(self._one(ids, sampling) for ids in prompts)))

    async def _one(self, ids: tuple[int, ...], sampling: dict[str, Any]) -> int:
        from vllm import SamplingParams
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, **sampling)
        self._count += 1
        async for output in self.llm.generate(tokens_input(list(ids)), params, str(self._count)):
            tokens = len(output.outputs[0].token_ids)
        return tokens
