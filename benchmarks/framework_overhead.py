"""What LangChain and the scores cost, side by side with bare vLLM.

64 prompts through `VLLMUncertaintyLLM.batch` against `vllm.LLM.generate` with the same parameters,
and 16 threads calling `invoke`, or 16 tasks calling `ainvoke`, at once against one batch of 16.
Figures are tokens a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.bare_vllm import engine_args
from benchmarks.report import best_of, conclude
from uq_llm_integrations.langchain import VLLMUncertaintyLLM

PROMPTS = [
    f"{number}. The most interesting fact about the number {number} is" for number in range(64)
]
TOKENS = 32
SAMPLING = {"temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True}


def main() -> None:
    """Measure and conclude."""
    import vllm

    arguments = engine_args()
    bare = vllm.LLM(**arguments)
    ours = VLLMUncertaintyLLM(**SAMPLING, **arguments)
    params = vllm.SamplingParams(logprobs=0, **SAMPLING)

    async def tasks() -> None:
        await asyncio.gather(*map(ours.ainvoke, PROMPTS[:16]))

    def threads() -> None:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ours.invoke, PROMPTS[:16]))

    batches = {
        "vllm.LLM.generate, 64": speed(64, lambda: bare.generate(PROMPTS, params, use_tqdm=False)),
        "VLLMUncertaintyLLM.batch, 64": speed(64, lambda: ours.batch(PROMPTS)),
    }
    callers = {
        "VLLMUncertaintyLLM.batch, 16": speed(16, lambda: ours.batch(PROMPTS[:16])),
        "16 threads, invoke": speed(16, threads),
        "16 tasks, ainvoke": speed(16, lambda: asyncio.run(tasks())),
    }
    best_of(1, batches | callers)  # warm
    measured = best_of(4, batches | callers)
    best = {name: values[0] for name, values in measured.items()}
    generate, batch, sixteen, by_threads, by_tasks = best.values()
    ours.backend.close()
    conclude(
        "framework_overhead",
        measured,
        {
            "batch / LLM.generate, 64 prompts": (0.97, batch / generate),
            "16 threads / one batch": (0.90, by_threads / sixteen),
            "16 tasks / one batch": (0.90, by_tasks / sixteen),
        },
    )


def speed(prompts: int, run: Callable[[], object]) -> Callable[[], float]:
    """Return what measures the tokens a second of a run."""

    def measure() -> float:
        started = time.perf_counter()
        run()
        return prompts * TOKENS / (time.perf_counter() - started)

    return measure


if __name__ == "__main__":
    main()
