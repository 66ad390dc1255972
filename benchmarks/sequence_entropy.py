"""How much less the exact entropies of the samples' tokens vary than their log-probabilities.

Both estimate the entropy of the texts that a prompt leads to, from the same samples: `mc_entropy`,
their mean negative log-probability, and `rb_entropy`, the mean sum of their tokens' entropies.

On a model in memory, whose texts can all be enumerated: for several numbers of samples, the
variance of both over many repetitions, and how far their means are from the entropy. On the demo
model, whose texts cannot: the variance of both over the samples of a prompt, of which an estimate
from n samples has the n-th part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.report import conclude
from uq_llm_integrations import (
    Candidate,
    Request,
    SampleMonitor,
    Score,
    ScriptedBackend,
    TokenTrace,
    UncertaintyModel,
    VLLMEngineBackend,
)
from uq_llm_integrations.backends.token_statistics import dense_rows, exact_statistics

METHODS = ("mc_entropy", "rb_entropy")
SIZES, REPETITIONS = (2, 5, 10), 2_000
LENGTH, WORDS = 6, 5
STANDARD_ERRORS = 4.0
"""How far the mean of unbiased estimates may be from the entropy."""

SAMPLES, TOKENS = 64, 16
QUESTIONS = (
    "What is the capital of France?",
    "Name an animal.",
    "Write one sentence about the sea.",
    "Why is the sky blue?",
)


class Tables(ScriptedBackend):
    """A model of five words and an end: what follows depends on the last word and the place."""

    def __init__(self, seed: int) -> None:
        super().__init__(["unused"])
        self._rng = np.random.default_rng(seed)
        logits = self._rng.normal(0, 2, (LENGTH, WORDS + 1, WORDS + 1))
        logits[0, :, WORDS] = -np.inf  # a text has a word at least
        self._logprobs = logits - np.logaddexp.reduce(logits, -1, keepdims=True)

    def texts(self, before: tuple[int, ...] = (), logprob: float = 0.0) -> Iterator[float]:
        """Yield the log-probabilities of all texts."""
        if len(before) == LENGTH or before[-1:] == (WORDS,):
            yield logprob
            return
        for word, share in enumerate(self._row(before)):
            if np.isfinite(share):
                yield from self.texts((*before, word), logprob + float(share))

    async def generate(
        self, request: Request, monitor: SampleMonitor | None = None
    ) -> list[Candidate]:
        """Return samples, with the exact statistics of each token's distribution."""
        return [self._sample(request.prompt_ids) for _ in range(request.n)]

    def _row(self, before: tuple[int, ...]) -> Any:
        return self._logprobs[len(before), before[-1] if before else 0]

    def _sample(self, prompt_ids: tuple[int, ...]) -> Candidate:
        words: tuple[int, ...] = ()
        rows = []
        while len(words) < LENGTH and words[-1:] != (WORDS,):
            rows.append(self._row(words))
            words = (*words, int(self._rng.choice(WORDS + 1, p=np.exp(rows[-1]))))
        logprobs = np.array(rows)
        own = logprobs[np.arange(len(words)), list(words)]
        exact = exact_statistics(dense_rows(logprobs))
        trace = TokenTrace(WORDS + 1, own, np.ones(len(own), np.int64), **exact)
        text = "".join("abcde."[word] for word in words)
        return Candidate(prompt_ids, words, text, trace, "length")


def main() -> None:
    """Measure and conclude."""
    figures, goals = {}, {}
    for size in SIZES:
        measured, reached = in_memory(size)
        figures[f"in memory, {size} samples"] = measured
        goals |= {f"{name}, in memory, {size} samples": goal for name, goal in reached.items()}
    for question, measured in demo_model().items():
        figures[question] = measured
        ratio = measured["variance"]["mc_entropy"] / measured["variance"]["rb_entropy"]
        goals[f"plain / exact variance, {question}"] = (1.0, ratio)
    conclude("sequence_entropy", figures, goals)


def in_memory(size: int) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
    """Return the variances and errors of both estimates from so many samples, and the goals."""
    backend = Tables(seed=3)
    logprobs = np.array(list(backend.texts()))
    entropy = float(-np.exp(logprobs) @ logprobs)
    model = UncertaintyModel(backend, n=size, methods=METHODS)
    found = np.array(asyncio.run(estimates(model)))
    variance = dict(zip(METHODS, found.var(0, ddof=1).tolist(), strict=True))
    mean = dict(zip(METHODS, found.mean(0).tolist(), strict=True))
    print(f"in memory, {size} samples: entropy {entropy:.4f}, means {mean}, variances {variance}")
    goals = {"plain / exact variance": (1.0, variance["mc_entropy"] / variance["rb_entropy"])}
    for name in METHODS:
        allowed = STANDARD_ERRORS * (variance[name] / REPETITIONS) ** 0.5
        error = abs(mean[name] - entropy)
        goals[f"allowed / error of the mean of {name}"] = (1.0, allowed / error)
    return {"texts": len(logprobs), "entropy": entropy, "mean": mean, "variance": variance}, goals


async def estimates(model: UncertaintyModel) -> list[list[float]]:
    """Return both estimates of each repetition."""
    results = [await model.agenerate("?") for _ in range(REPETITIONS)]
    return [[known(one.score(name)) for name in METHODS] for one in results]


def known(score: Score) -> float:
    """Return a score's value."""
    assert score.value is not None, score.reason
    return score.value


def demo_model() -> dict[str, dict[str, Any]]:
    """Return the mean and the variance of both over the samples of each question."""
    from benchmarks.bare_vllm import engine_args

    arguments = engine_args(max_num_seqs=SAMPLES)
    with VLLMEngineBackend(arguments.pop("model"), **arguments) as backend:
        return {question: over_samples(backend, question) for question in QUESTIONS}


def over_samples(backend: VLLMEngineBackend, question: str) -> dict[str, Any]:
    """Return what each sample of a question contributes to both, its mean and its variance."""
    ids = backend.run(backend.encode(question, chat=True))
    sampling = {"max_tokens": TOKENS, "temperature": 1.0, "seed": 1}
    found = backend.run(backend.generate(Request(ids, n=SAMPLES, sampling=sampling)))
    rows = {
        "mc_entropy": np.array([-one.trace.logprob.sum() for one in found]),
        "rb_entropy": np.array([exact_sum(one) for one in found]),
    }
    mean = {name: float(row.mean()) for name, row in rows.items()}
    variance = {name: float(row.var(ddof=1)) for name, row in rows.items()}
    print(f"{question} means {mean}, variances {variance}", flush=True)
    return {"mean": mean, "variance": variance}


def exact_sum(candidate: Candidate) -> float:
    """Return the sum of the exact entropies at a sample's tokens."""
    assert candidate.trace.entropy is not None
    return float(candidate.trace.entropy.sum())


if __name__ == "__main__":
    main()
