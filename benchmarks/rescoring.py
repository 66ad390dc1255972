"""What it costs to score given texts behind a prompt, against one full request for each of them.

Eight continuations of 16 tokens behind prompts of 128, 512 and 1024 tokens: this package's scoring
in one batch behind the cached prompt, with exact statistics, against a loop of vLLM requests over
the whole text with `prompt_logprobs=20`. Figures are runs a second. Warm: the prompt has just been
generated from, as in real use; cold: it was never seen before.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks.bare_vllm import BareAsyncLLM, engine_args
from benchmarks.report import best_of, conclude
from uq_llm_integrations import Request, VLLMEngineBackend

Ids = tuple[int, ...]

LENGTHS = (128, 512, 1024)
TIMES_FASTER = {"warm, 512": 10.0}
_rng = np.random.default_rng(0)


def main() -> None:
    """Measure and conclude."""
    bare = BareAsyncLLM(enable_prefix_caching=True)
    arguments = engine_args(enable_prefix_caching=True)
    ours = VLLMEngineBackend(arguments.pop("model"), **arguments)

    def generate_from(prompt: Ids) -> None:
        bare.generate([prompt], max_tokens=2)
        ours.run(ours.generate(Request(prompt, sampling={"max_tokens": 2})))

    def loop(prompt: Ids, texts: list[Ids]) -> None:
        for text in texts:
            bare.generate([prompt + text], max_tokens=1, temperature=0, prompt_logprobs=20)

    def behind_the_prompt(prompt: Ids, texts: list[Ids]) -> None:
        scored = ours.run(ours.score_all(prompt, texts))
        assert all(one.trace.is_exact and len(one.trace) == 16 for one in scored)

    def timed(run: Callable[[Ids, list[Ids]], None], length: int, *, warm: bool) -> float:
        prompt, texts = ids(length), [ids(16) for _ in range(8)]
        if warm:
            generate_from(prompt)
        started = time.perf_counter()
        run(prompt, texts)
        return 1.0 / (time.perf_counter() - started)

    figures, goals = {}, {}
    timed(behind_the_prompt, 128, warm=True)
    timed(loop, 128, warm=True)
    for length in LENGTHS:
        for warm in (True, False):
            case = f"{'warm' if warm else 'cold'}, {length}"
            print(f"{case} tokens of prompt, runs a second:", flush=True)
            runs = {
                "one request a text": lambda n=length, w=warm: timed(loop, n, warm=w),
                "one batch": lambda n=length, w=warm: timed(behind_the_prompt, n, warm=w),
            }
            figures[case] = best_of(2, runs)
            theirs, own = (values[0] for values in figures[case].values())
            print(f"  {own / theirs:.1f} times faster", flush=True)
            if case in TIMES_FASTER:
                goals[f"times faster, {case}"] = (TIMES_FASTER[case], own / theirs)
    ours.close()
    bare.llm.shutdown()
    conclude("rescoring", figures, goals)


def ids(count: int) -> Ids:
    """Return tokens that no other prompt has."""
    return tuple(_rng.integers(100, 40_000, count).tolist())


if __name__ == "__main__":
    main()
