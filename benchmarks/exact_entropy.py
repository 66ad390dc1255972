"""What exact statistics of every token cost, side by side with vLLM's own log-probabilities.

Tokens a second of (a) vLLM with logprobs=0, (b) this package with exact statistics, (c) vLLM with
logprobs=20, (d) vLLM with the whole vocabulary, at batch sizes 1, 4 and 16, vLLM being called as
it is by default. The whole vocabulary is slow, so (d) generates fewer tokens; its speed hardly
depends on how many.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.bare_vllm import BareAsyncLLM, engine_args
from benchmarks.report import best_of, conclude
from uq_llm_integrations import Request, VLLMEngineBackend

GOALS = {1: 10.0, 4: 30.0, 16: 70.0}
"""Batch size -> how many times faster than the whole vocabulary."""

TOKENS, WHOLE_TOKENS = 128, 8
PROMPTS = [tuple(range(1000 + 50 * i, 1024 + 50 * i)) for i in range(16)]


def main() -> None:
    """Measure and conclude."""
    bare = BareAsyncLLM(max_logprobs=-1)
    arguments = engine_args(max_logprobs=-1)
    ours = VLLMEngineBackend(arguments.pop("model"), **arguments)

    def vllm(batch: int, logprobs: int, tokens: int) -> Callable[[], float]:
        sampling = {"temperature": 0, "ignore_eos": True, "max_tokens": tokens}
        return lambda: speed(lambda: bare.generate(PROMPTS[:batch], logprobs=logprobs, **sampling))

    def exact(batch: int) -> Callable[[], float]:
        return lambda: speed(lambda: generate_exactly(ours, batch))

    figures, goals = {}, {}
    for batch, times_faster in GOALS.items():
        print(f"batch {batch}, tokens a second:", flush=True)
        runs = {
            "a: vLLM, logprobs=0": vllm(batch, 0, TOKENS),
            "b: exact statistics": exact(batch),
            "c: vLLM, logprobs=20": vllm(batch, 20, TOKENS),
        }
        best_of(1, runs)  # warm
        measured = best_of(6, runs)
        measured |= best_of(2, {"d: vLLM, whole vocabulary": vllm(batch, -1, WHOLE_TOKENS)})
        figures[f"batch {batch}"] = measured
        a, b, _, d = (values[0] for values in measured.values())
        goals[f"b/a, batch {batch}"] = (0.95, b / a)
        goals[f"b/d, batch {batch}"] = (times_faster, b / d)
    ours.close()
    bare.llm.shutdown()
    conclude("exact_entropy", figures, goals)


def generate_exactly(backend: VLLMEngineBackend, batch: int) -> int:
    """Generate for some prompts at once with exact statistics and return the tokens made."""
    import asyncio

    sampling = {"temperature": 0, "ignore_eos": True, "max_tokens": TOKENS}

    async def generate() -> int:
        requests = [Request(ids, sampling=sampling) for ids in PROMPTS[:batch]]
        answers = await asyncio.gather(*map(backend.generate, requests))
        assert all(candidate.trace.is_exact for (candidate,) in answers)
        return sum(len(candidate.token_ids) for (candidate,) in answers)

    return backend.run(generate())


def speed(run: Callable[[], int]) -> float:
    """Return the tokens a second of a run that returns its tokens."""
    started = time.perf_counter()
    return run() / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
