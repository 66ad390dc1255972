"""The three backends side by side: speed with the same methods, and memory.

Tokens a second of vLLM with its weights shared, of Hugging Face alone, and of vLLM with a second
copy on Hugging Face: 16 prompts of different lengths, 4 samples each, scored by methods that read
the trace, attention and hidden states. What scoring 200 tokens takes of the time of generating
them, and 8 texts of 200 tokens through the shared model and through plain transformers. Peak memory
of each mode, in a process of its own, against that of vLLM alone with its one model; and as so many
copies of the weights, which is what is left of it where the cache is no part of the comparison.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bare_vllm import engine_args
from benchmarks.report import best_of, conclude
from uq_llm_integrations.backends.base import Backend
from uq_llm_integrations.backends.huggingface.backend import HuggingFaceBackend
from uq_llm_integrations.backends.hybrid import hybrid_backend
from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.records import Inspection, Request
from uq_llm_integrations.strategies.base import Single, run_strategies

TRACE = ("entropy", "perplexity")
ALL = (*TRACE, "rauq", "attention_score", "eigen_score")
PROMPTS = [tuple(range(1000 + 50 * i, 1016 + 54 * i)) for i in range(16)]
SAMPLING = {"temperature": 1.0, "max_tokens": 32, "ignore_eos": True, "seed": 1}
SCORED = [tuple(range(2000 + 300 * i, 2200 + 300 * i)) for i in range(8)]
MODES = ("vllm", "shared", "resident", "sequential")


def main() -> None:
    """Measure and conclude."""
    figures: dict[str, Any] = {"megabytes": {mode: least_peak_of(mode) for mode in MODES}}
    weights = sum(file.stat().st_size for file in model_folder().glob("*.safetensors")) / 2**20
    alone_peak = figures["megabytes"]["vllm"]
    peaks = {mode: peak / alone_peak for mode, peak in figures["megabytes"].items()}
    copies = {
        mode: 1.0 + (peak - alone_peak) / weights for mode, peak in figures["megabytes"].items()
    }
    figures |= {
        "megabytes of weights": weights,
        "peak / vLLM's": peaks,
        "copies of the weights": copies,
    }
    print(figures, flush=True)
    shared, alone, resident = (backend(mode) for mode in ("shared", "huggingface", "resident"))
    speeds = best_of(
        2,
        {
            "vLLM, shared": partial(speed, shared),
            "Hugging Face": partial(speed, alone),
            "hybrid, resident": partial(speed, resident),
        },
    )
    model = plain_model()
    passes = best_of(
        4,
        {
            "shared, 8 x 200": partial(rate, lambda: inspect(shared)),
            "transformers, 8 x 200": partial(rate, lambda: forward(model)),
        },
    )
    figures |= {"tokens a second": speeds, "passes a second": passes, "200 tokens": ratio(model)}
    for one in (shared, alone, resident):
        one.close()
    vllm, hugging = speeds["vLLM, shared"][0], speeds["Hugging Face"][0]
    inside, plain = (values[0] for values in passes.values())
    goals = {
        "shared / Hugging Face, tokens a second": (1.5, vllm / hugging),
        "shared / transformers, passes a second": (1 / 1.2, inside / plain),
        "1.15 / (peak / vLLM's), shared": (1.0, 1.15 / peaks["shared"]),
    }
    conclude("hybrid", figures, goals)


def backend(mode: str, **engine: Any) -> Backend:
    """Return a backend of the demo model; it begins on first use."""
    arguments = engine_args(enable_prefix_caching=True, block_size=32, **engine)
    model, eager = arguments.pop("model"), {"attn_implementation": "eager", "dtype": "float32"}
    if mode == "huggingface":
        return HuggingFaceBackend(model, **eager)
    if mode in {"vllm", "shared"}:
        return hybrid_backend(model, "shared", arguments)
    return hybrid_backend(model, mode, arguments, eager)  # type: ignore[arg-type]  # one of MODES


def work(backend: Backend, methods: tuple[str, ...], prompts: int = len(PROMPTS)) -> int:
    """Generate and score all samples, and return how many tokens were generated."""
    requests = [Request(ids, 4, sampling=SAMPLING) for ids in PROMPTS[:prompts]]
    results = backend.run(run_strategies(Single(), requests, backend, methods))
    assert all(
        one[name].is_known for result in results for one in result.scores for name in methods
    )
    return sum(len(one.token_ids) for result in results for one in result.candidates)


def speed(backend: Backend) -> float:
    """Return tokens a second with all methods."""
    started = time.perf_counter()
    return work(backend, ALL) / (time.perf_counter() - started)


def rate(run: Callable[[], Any]) -> float:
    """Return how many times a second something runs."""
    started = time.perf_counter()
    run()
    return 1.0 / (time.perf_counter() - started)


def inspect(backend: Backend) -> None:
    """Look at one layer and at attention of 8 texts."""
    backend.run(backend.inspect_all(SCORED, Inspection((-1,), "bands")))


def plain_model() -> Any:
    """Return the demo model in transformers."""
    hide_mismatched_builds()
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        model_folder(), dtype="float32", attn_implementation="eager"
    ).eval()


def forward(model: Any) -> None:
    """Pass the same 8 texts through transformers, with the same to show."""
    import torch

    ids = torch.tensor(SCORED)
    with torch.inference_mode():
        output = model(ids, output_hidden_states=True, output_attentions=True, use_cache=False)
        output.logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])


def ratio(model: Any) -> dict[str, float]:
    """Return the seconds that transformers takes to generate 200 tokens, and to score them."""
    import torch

    prompt = torch.tensor([PROMPTS[0]])
    with torch.inference_mode():
        started = time.perf_counter()
        ids = model.generate(
            prompt, max_new_tokens=200, min_new_tokens=200, do_sample=False, pad_token_id=0
        )
        generating = time.perf_counter() - started
        started = time.perf_counter()
        model(ids, use_cache=False).logits.log_softmax(-1)
        scoring = time.perf_counter() - started
    return {"generating": generating, "scoring": scoring, "ratio": generating / scoring}


def model_folder() -> Path:
    """Return the folder of the demo model."""
    return Path(engine_args()["model"])


def least_peak_of(mode: str) -> float:
    """Return the lower of two peaks, since allocators keep more or less; one where it is slow."""
    return min(peak_of(mode) for _ in range(1 if mode == "sequential" else 2))


def peak_of(mode: str) -> float:
    """Return the peak memory of a mode in megabytes, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.hybrid", mode]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    print(mode, done.stdout.splitlines()[-1], flush=True)
    return float(done.stdout.splitlines()[-1])


def print_peak(mode: str) -> None:
    """Do the work and print the peak memory of this process and its children."""
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.2):
            peak = max(peak, proportional_megabytes())

    watching = threading.Thread(target=watch)
    watching.start()
    with backend(mode, enforce_eager=True) as one:
        # On the CPU an engine sleeps by ending, once for each look inside: one prompt is enough.
        prompts = 1 if mode == "sequential" else len(PROMPTS)
        work(one, TRACE if mode == "vllm" else ALL, prompts)
    done.set()
    watching.join()
    print(peak)


def proportional_megabytes() -> float:
    """Return the memory of this process and its children; what they share counts once."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:  # it has ended meanwhile
            continue
    return total / 2**20


if __name__ == "__main__":
    print_peak(sys.argv[1]) if sys.argv[1:] else main()
