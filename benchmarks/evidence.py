"""What several methods at once cost, whose evidence is gathered once and at the same time.

On a scripted backend whose calls take 0.3 seconds each: an answer with three methods that generate
samples or ask the model. On the real engine: an answer with all methods that it can serve and that
need nothing fitted, against the same methods one after the other. All come first, so that what the
engine has cached by then is to the good of the single ones.
"""

from __future__ import annotations

import time

from benchmarks.bare_vllm import engine_args
from benchmarks.report import conclude
from uq_llm_integrations import ScriptedBackend, UncertaintyModel, VLLMEngineBackend

DELAY, LIMIT = 0.3, 0.65
"""Seconds of one call, and of an answer with the three methods."""

THREE = ("mc_entropy", "p_true_empirical", "verbalized_2s")
WARM, QUESTION = "What is the capital of France?", "Who wrote Faust?"


def main() -> None:
    """Measure and conclude."""
    scripted = {name: scripted_seconds((name,)) for name in THREE}
    together = scripted_seconds(THREE)
    print(f"scripted: one after the other {scripted}, at once {together:.3f} s", flush=True)
    single, every = engine_seconds()
    figures = {
        "scripted, seconds": {**scripted, "all three": together},
        "engine, seconds": {**single, "all affordable": every},
    }
    answer = single["entropy"]  # which costs nothing beyond it
    beyond = sum(seconds - answer for seconds in single.values())
    goals = {
        "one after the other / all affordable at once": (1.0, beyond / (every - answer)),
        f"{LIMIT} s / three methods at once, {DELAY} s a call": (1.0, LIMIT / together),
    }
    conclude("evidence", figures, goals)


def scripted_seconds(methods: tuple[str, ...]) -> float:
    """Return the seconds of an answer with its scores, the best of three."""
    model = UncertaintyModel(ScriptedBackend(["0.9"], delay=DELAY), methods=methods)
    return min(answer_seconds(model, "How sure are you?") for _ in range(3))


def engine_seconds() -> tuple[dict[str, float], float]:
    """Return the seconds of an answer with each affordable method alone, and with all at once."""
    arguments = engine_args(enable_prefix_caching=True, block_size=32, max_logprobs=256)
    with VLLMEngineBackend(arguments.pop("model"), **arguments) as backend:
        model = UncertaintyModel(
            backend, methods="all affordable", chat_template=True, temperature=0.0, max_tokens=24
        )
        answer_seconds(model, WARM)
        every = answer_seconds(model, QUESTION)
        print(f"all {len(model.methods)} methods at once: {every:.2f} s", flush=True)
        alone = {}
        for name in (*model.methods, "entropy"):
            alone[name] = answer_seconds(model.with_options(methods=[name]), QUESTION)
            print(f"{name}: {alone[name]:.2f} s", flush=True)
        return alone, every


def answer_seconds(model: UncertaintyModel, question: str) -> float:
    """Return the seconds of one answer with all its scores."""
    started = time.perf_counter()
    model.generate(question)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
