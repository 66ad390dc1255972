"""When further samples can no longer change the outcome, or hardly so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb

from uq_llm_integrations.records import Candidate, SampleMonitor
from uq_llm_integrations.strategies.voting import Answer


def is_settled(candidates: Sequence[Candidate], total: int, answer: Answer, sure: float) -> bool:
    """Return whether the majority of `total` samples is known from those that are there.

    It is where the leader is out of reach, or stays ahead of the second with a probability of at
    least `sure` by the Beta rule of adaptive consistency (https://arxiv.org/abs/2305.11860).
    """
    counts = Counter(answer(one.text) for one in candidates if one.is_whole)
    left = total - len(candidates)
    (_, first), (_, second), *_ = [*counts.most_common(2), ("", 0), ("", 0)]
    if first - second > left:
        return True
    return first > 0 and chance_to_stay_ahead(first, second) >= sure


def chance_to_stay_ahead(first: int, second: int) -> float:
    """Return the mass above 1/2 of Beta(first + 1, second + 1), by its sum for whole numbers."""
    trials = first + second + 1
    favourable = sum(comb(trials, i) for i in range(first + 1))
    return float(favourable / 2**trials)


def settled_monitor(
    earlier: Sequence[Candidate], total: int, answer: Answer, sure: float
) -> SampleMonitor:
    """Return a monitor that leaves the samples still running once the vote is settled."""
    return SampleMonitor(enough=lambda done: is_settled([*earlier, *done], total, answer, sure))


def leaders_share(candidates: Sequence[Candidate], answer: Answer) -> float:
    """Return the share of all candidates that give the most frequent answer."""
    counts = Counter(answer(one.text) for one in candidates if one.is_whole)
    return max(counts.values(), default=0) / len(candidates)


def hopeless_monitor(
    method: str, max_tokens: int | None, earlier: Sequence[Candidate], regret: float = 0.0
) -> SampleMonitor | None:
    """Return a monitor that leaves a sample which cannot be the least uncertain one any more.

    Negative log-probabilities only add up: with `maxprob` a sample can never come below its sum so
    far, with `perplexity` never below that sum over the most tokens that it may take. One that
    could be better by `regret` at most is left, too.
    """
    if method == "MaximumSequenceProbability":
        length = 1
    elif method == "Perplexity" and max_tokens:
        length = max_tokens
    else:
        return None

    def score(candidate: Candidate) -> float:
        tokens = 1 if length == 1 else len(candidate.token_ids)
        return -float(candidate.trace.logprob.sum()) / tokens

    def hopeless(logprobs: Sequence[float], finished: Sequence[Candidate]) -> bool:
        whole = [one for one in (*earlier, *finished) if one.is_whole and one.token_ids]
        return bool(whole) and -sum(logprobs) / length > min(map(score, whole)) - regret

    return SampleMonitor(hopeless=hopeless)
