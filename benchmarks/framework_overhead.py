"""What the frameworks and the scores cost, side by side with bare vLLM and the frameworks' own.

64 prompts through `VLLMUncertaintyLLM.batch` against `vllm.LLM.generate` and against
langchain-community's `VLLM.batch`; 16 threads calling `invoke`, or 16 tasks calling `ainvoke`, at
once against one batch of 16; `complete` of both LlamaIndex classes. Bare vLLM returns
`logprobs=0`, the log-probability of each token. So do the frameworks' own classes, which run on
the engine of `vllm.LLM` and hand on no scores, and then once more without, as they are by default.
LlamaIndex's gives vLLM a parameter that it has no more (`best_of`), which is taken out for it.
Figures are tokens a second.

The Python time that the package and LangChain add to one warm call is that of a chat `ainvoke` on
a scripted backend, beside that of LangChain's own fake chat model; milliseconds, best of many.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.bare_vllm import bare_llm, engine_args
from benchmarks.report import best_of, conclude
from uq_llm_integrations import ChatVLLMUncertainty, ScriptedBackend
from uq_llm_integrations.langchain import VLLMUncertaintyLLM
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM as LlamaIndexLLM

PROMPTS = [
    f"{number}. The most interesting fact about the number {number} is" for number in range(64)
]
TOKENS = 128
SAMPLING = {"temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True}
WARM_CALLS = 300


def main() -> None:
    """Measure and conclude."""
    from vllm import SamplingParams

    python = python_milliseconds()
    print(f"Python time of one warm call, milliseconds: {python}", flush=True)
    bare = bare_llm()
    ours = VLLMUncertaintyLLM(**SAMPLING, **engine_args())
    params = SamplingParams(logprobs=0, **SAMPLING)
    llama_index = LlamaIndexLLM(backend=ours.backend, chat_template=False, **SAMPLING)

    async def tasks() -> None:
        await asyncio.gather(*map(ours.ainvoke, PROMPTS[:16]))

    def threads() -> None:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ours.invoke, PROMPTS[:16]))

    batches = {
        "vllm.LLM.generate, 64": speed(64, lambda: bare.generate(PROMPTS, params, use_tqdm=False)),
        "VLLMUncertaintyLLM.batch, 64": batch_of(ours),
        "langchain-community VLLM.batch, 64": batch_of(community_llm(bare, 0)),
        "the same without log-probabilities": batch_of(community_llm(bare, None)),
    }
    callers = {
        "VLLMUncertaintyLLM.batch, 16": speed(16, lambda: ours.batch(PROMPTS[:16])),
        "16 threads, invoke": speed(16, threads),
        "16 tasks, ainvoke": speed(16, lambda: asyncio.run(tasks())),
    }
    one_by_one = {
        "LlamaIndex, VLLMUncertaintyLLM.complete": completion_of(llama_index),
        "LlamaIndex, llms-vllm Vllm.complete": completion_of(llms_vllm(bare, 0)),
        "complete without log-probabilities": completion_of(llms_vllm(bare, None)),
    }
    measured = warm_best_of(5, batches) | warm_best_of(3, callers) | warm_best_of(6, one_by_one)
    best = {name: values[0] for name, values in measured.items()}
    generate, batch, theirs, theirs_bare = (best[name] for name in batches)
    sixteen, by_threads, by_tasks = (best[name] for name in callers)
    complete, complete_theirs, complete_bare = (best[name] for name in one_by_one)
    ours.close()
    conclude(
        "framework_overhead",
        {**measured, "Python time of one warm call, milliseconds": python},
        {
            "batch / LLM.generate, 64 prompts": (0.97, batch / generate),
            "batch / langchain-community, 64 prompts": (1.0, batch / theirs),
            "batch / the same without log-probabilities": (0.95, batch / theirs_bare),
            "complete / llama-index-llms-vllm": (1.0, complete / complete_theirs),
            "complete / the same without log-probabilities": (0.95, complete / complete_bare),
            "16 threads / one batch": (0.90, by_threads / sixteen),
            "16 tasks / one batch": (0.90, by_tasks / sixteen),
        },
    )


def python_milliseconds() -> dict[str, float]:
    """Return the milliseconds of one warm chat call on no engine, ours and LangChain's own."""
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    models = {
        "ChatVLLMUncertainty": ChatVLLMUncertainty(backend=ScriptedBackend(["Paris"])),
        "LangChain's FakeListChatModel": FakeListChatModel(responses=["Paris"]),
    }
    return {name: asyncio.run(_best_milliseconds(model)) for name, model in models.items()}


async def _best_milliseconds(model: Any) -> float:
    best = float("inf")
    for _ in range(WARM_CALLS):
        started = time.perf_counter()
        await model.ainvoke("What is the capital of France?")
        best = min(best, time.perf_counter() - started)
    return 1000 * best


def warm_best_of(repetitions: int, runs: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Run each once, then as `best_of` does."""
    best_of(1, runs)
    return best_of(repetitions, runs)


def batch_of(llm: Any) -> Callable[[], float]:
    """Return what measures LangChain's `batch` of all prompts."""
    return speed(64, lambda: llm.batch(PROMPTS))


def completion_of(llm: Any) -> Callable[[], float]:
    """Return what measures LlamaIndex's `complete` of one prompt."""
    return speed(1, lambda: llm.complete(PROMPTS[0]))


def community_llm(engine: Any, logprobs: int | None) -> Any:
    """Return langchain-community's class on an engine that runs already."""
    from langchain_community.llms.vllm import VLLM

    return VLLM.model_construct(
        client=engine, temperature=0.0, max_new_tokens=TOKENS, ignore_eos=True, logprobs=logprobs
    )


def llms_vllm(engine: Any, logprobs: int | None) -> Any:
    """Return LlamaIndex's own class on an engine that runs already, without `best_of`."""
    from llama_index.llms.vllm import Vllm

    class WithoutBestOf(Vllm):  # type: ignore[misc]  # it is not typed
        @property
        def _model_kwargs(self) -> dict[str, Any]:
            return {k: v for k, v in super()._model_kwargs.items() if k != "best_of"}

    llm = WithoutBestOf.model_construct(
        model="smollm2",
        temperature=0.0,
        max_new_tokens=TOKENS,
        ignore_eos=True,
        logprobs=logprobs,
    )
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
