"""What the frameworks and the scores cost, side by side with bare vLLM and the frameworks' own.

64 prompts through `VLLMUncertaintyLLM.batch` against `vllm.LLM.generate` with the same parameters
and against langchain-community's `VLLM.batch`; 16 threads calling `invoke`, or 16 tasks calling
`ainvoke`, at once against one batch of 16; `complete` of both LlamaIndex classes. The frameworks'
own classes run on the engine of `vllm.LLM` and ask for `logprobs=0`, too, though they hand on no
scores; LlamaIndex's gives vLLM a parameter that it has no more (`best_of`), which is taken out for
it. Figures are tokens a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.bare_vllm import bare_llm, engine_args
from benchmarks.report import best_of, conclude
from uq_llm_integrations.langchain import VLLMUncertaintyLLM
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM as LlamaIndexLLM

PROMPTS = [
    f"{number}. The most interesting fact about the number {number} is" for number in range(64)
]
TOKENS = 128
SAMPLING = {"temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True}


def main() -> None:
    """Measure and conclude."""
    from vllm import SamplingParams

    bare = bare_llm()
    ours = VLLMUncertaintyLLM(**SAMPLING, **engine_args())
    params = SamplingParams(logprobs=0, **SAMPLING)
    llama_index = LlamaIndexLLM(backend=ours.backend, chat_template=False, **SAMPLING)
    community, vllm_llms = community_llm(bare), llms_vllm(bare)

    async def tasks() -> None:
        await asyncio.gather(*map(ours.ainvoke, PROMPTS[:16]))

    def threads() -> None:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ours.invoke, PROMPTS[:16]))

    batches = {
        "vllm.LLM.generate, 64": speed(64, lambda: bare.generate(PROMPTS, params, use_tqdm=False)),
        "VLLMUncertaintyLLM.batch, 64": speed(64, lambda: ours.batch(PROMPTS)),
        "langchain-community VLLM.batch, 64": speed(64, lambda: community.batch(PROMPTS)),
    }
    callers = {
        "VLLMUncertaintyLLM.batch, 16": speed(16, lambda: ours.batch(PROMPTS[:16])),
        "16 threads, invoke": speed(16, threads),
        "16 tasks, ainvoke": speed(16, lambda: asyncio.run(tasks())),
    }
    one_by_one = {
        "LlamaIndex, VLLMUncertaintyLLM.complete": speed(
            1, lambda: llama_index.complete(PROMPTS[0])
        ),
        "LlamaIndex, llms-vllm Vllm.complete": speed(1, lambda: vllm_llms.complete(PROMPTS[0])),
    }
    measured = warm_best_of(6, batches) | warm_best_of(3, callers) | warm_best_of(8, one_by_one)
    best = {name: values[0] for name, values in measured.items()}
    generate, batch, theirs, sixteen, by_threads, by_tasks, complete_ours, complete_theirs = (
        best.values()
    )
    ours.backend.close()
    conclude(
        "framework_overhead",
        measured,
        {
            "batch / LLM.generate, 64 prompts": (0.97, batch / generate),
            "batch / langchain-community, 64 prompts": (1.0, batch / theirs),
            "complete / llama-index-llms-vllm": (1.0, complete_ours / complete_theirs),
            "16 threads / one batch": (0.90, by_threads / sixteen),
            "16 tasks / one batch": (0.90, by_tasks / sixteen),
        },
    )


def warm_best_of(repetitions: int, runs: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run each once, then as `best_of` does."""
    best_of(1, runs)
    return best_of(repetitions, runs)


def community_llm(engine: Any) -> Any:
    """Return langchain-community's class on an engine that runs already."""
    from langchain_community.llms.vllm import VLLM

    return VLLM.model_construct(
        client=engine, temperature=0.0, max_new_tokens=TOKENS, ignore_eos=True, logprobs=0
    )


def llms_vllm(engine: Any) -> Any:
    """Return LlamaIndex's own class on an engine that runs already, without `best_of`."""
    from llama_index.llms.vllm import Vllm

    class WithoutBestOf(Vllm):  # type: ignore[misc]  # it is not typed
        @property
        def _model_kwargs(self) -> dict[str, Any]:
            return {k: v for k, v in super()._model_kwargs.items() if k != "best_of"}

    sampling = {"temperature": 0.0, "max_new_tokens": TOKENS, "ignore_eos": True, "logprobs": 0}
    llm = WithoutBestOf.model_construct(model="smollm2", **sampling)
    llm._client = engine
    return llm


def speed(prompts: int, run: Callable[[], object]) -> Callable[[], float]:
    """Return what measures the tokens a second of a run."""

    def measure() -> float:
        started = time.perf_counter()
        run()
        return prompts * TOKENS / (time.perf_counter() - started)

    return measure


if __name__ == "__main__":
    main()
