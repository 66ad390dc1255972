"""Sampling a few at a time, and no more once further samples are not worth it.

A vote is settled where the leader keeps its lead, a running sample is hopeless where what it has
cost already is too much, and a best sample is unbeatable where no sequence that was not sampled can
be more likely.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from uq_llm_integrations.errors import UncertaintyError
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.records import Candidate, Request, Result, SampleMonitor, SamplingEnd
from uq_llm_integrations.strategies.answers import Answer
from uq_llm_integrations.strategies.base import Run
from uq_llm_integrations.strategies.results import merged

ALTERNATIVES = 5
"""Top log-probabilities that make the bound on unseen sequences sharp: with none, all that the
sampled tokens leave over might be a single other token."""

_LEAST_REST = 1e-4  # what rounding in float32 can hide of a distribution's mass


async def sample_in_waves(
    run: Run,
    wave: int,
    monitor: Callable[[Sequence[Candidate]], SampleMonitor | None],
    why_done: Callable[[Sequence[Candidate]], str | None],
) -> Result:
    """Return up to `run.request.n` candidates, sampled `wave` at a time, with all scores.

    `monitor` gets the candidates of the waves before; `why_done` gets all so far and returns why
    no more are needed, None to go on. A wave that fails ends the sampling; the candidates before
    it are a result all the same.
    """
    result = await _sample_wave(run, (), wave, monitor)
    reason, failure = why_done(result.candidates), None
    while reason is None and failure is None and len(result.candidates) < run.request.n:
        try:
            more = await _sample_wave(run, result.candidates, wave, monitor)
        except UncertaintyError as error:
            failure = SamplingEnd("failed", f"a wave of samples failed: {error}")
        else:
            result = merged(result, more)
            reason = why_done(result.candidates)
    reason = reason or "samples that could not change the outcome were aborted"
    end = failure or SamplingEnd("stopped_early", reason)
    return _ended(await run.assess(result), run.request, end)


async def _sample_wave(
    run: Run,
    earlier: Sequence[Candidate],
    wave: int,
    monitor: Callable[[Sequence[Candidate]], SampleMonitor | None],
) -> Result:
    count = min(wave, run.request.n - len(earlier))
    part = run.vary(numbered(run.request, len(earlier), count))
    return await part.sample(monitor(earlier))


def numbered(request: Request, done: int, count: int) -> Request:
    """Return a request for `count` more samples, with seeds that go on from the `done` ones."""
    sampling = dict(request.sampling)
    if sampling.get("seed") is not None:
        sampling["seed"] += done
    return replace(request, n=count, sampling=sampling)


def _ended(result: Result, request: Request, end: SamplingEnd) -> Result:
    """Return the result with how its sampling ended, where not all samples are complete."""
    never_begun = request.n - len(result.candidates)
    if not never_begun and all(one.finish_reason != "abort" for one in result.candidates):
        return result
    usage, most = result.usage, request.sampling.get("max_tokens") or 0
    usage = replace(usage, saved_tokens=usage.saved_tokens + never_begun * most)
    return replace(result, usage=usage, sampling_end=end)


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
    favourable = sum(math.comb(trials, i) for i in range(first + 1))
    return float(favourable / 2**trials)


def settled_monitor(
    earlier: Sequence[Candidate], total: int, answer: Answer, sure: float
) -> SampleMonitor:
    """Return a monitor that aborts the samples still running once the vote is settled."""
    return SampleMonitor(enough=lambda done: is_settled([*earlier, *done], total, answer, sure))


def leaders_share(candidates: Sequence[Candidate], answer: Answer) -> float:
    """Return the share of all candidates that give the most frequent answer."""
    counts = Counter(answer(one.text) for one in candidates if one.is_whole)
    return max(counts.values(), default=0) / len(candidates)


def hopeless_monitor(
    method: str, max_tokens: int | None, earlier: Sequence[Candidate], regret: float = 0.0
) -> SampleMonitor | None:
    """Return a monitor that aborts a sample which cannot be the least uncertain one any more.

    Negative log-probabilities only add up: with `maxprob` a sample can never come below its sum so
    far; with their mean, and so with `perplexity`, never below that sum over the most tokens that
    it may take. One that could be better by `regret` nats at most is aborted, too. For any other
    method there is no such bound and no monitor.
    """
    name = find_method(method).name
    if name == "MaximumSequenceProbability":
        length = 1
    elif name in {"perplexity", "MeanNegativeLogLikelihood"} and max_tokens:
        length = max_tokens
    else:
        return None

    def value(candidate: Candidate) -> float:
        tokens = 1 if length == 1 else len(candidate.token_ids)
        return -float(candidate.trace.logprob.sum()) / tokens

    def hopeless(logprobs: Sequence[float], finished: Sequence[Candidate]) -> bool:
        whole = [one for one in (*earlier, *finished) if _is_known(one)]
        return bool(whole) and -sum(logprobs) / length > min(map(value, whole)) - regret

    return SampleMonitor(hopeless=hopeless)


def is_unbeatable(candidates: Sequence[Candidate], regret: float) -> bool:
    """Return whether no sequence can be more likely than the best one by more than `regret`."""
    whole = [one for one in candidates if _is_known(one)]
    best = max((float(one.trace.logprob.sum()) for one in whole), default=-math.inf)
    return most_unseen(candidates) <= best + regret


def most_unseen(candidates: Sequence[Candidate]) -> float:
    """Return the most log-probability that a sequence can have which is not among the candidates.

    The candidates form a tree. Any other sequence leaves it at some node by a token that none of
    them has there, and can be no more likely than the way to that token. Those that were cut short
    stand for all sequences that begin as they do.
    """
    if any(one.trace.damage for one in candidates):
        return 0.0  # nothing is known of it
    root, cut = _Node(0.0), [-math.inf]
    for candidate in candidates:
        node = root
        for index in range(len(candidate.token_ids)):
            node = node.child(candidate, index)
        if not candidate.is_whole and candidate.token_ids:
            cut.append(node.logprob)
    return max(max(cut), *(node.unseen() for node in _inner(root)))


def _is_known(candidate: Candidate) -> bool:
    """Return whether a candidate is whole, and how likely it is, known."""
    return bool(candidate.is_whole and candidate.token_ids and not candidate.trace.damage)


@dataclass
class _Node:
    logprob: float
    """Of the way here."""
    known: dict[int, float] = field(default_factory=dict)
    """Log-probabilities of next tokens: the sampled ones and the top ones."""
    weakest: float = 0.0
    """The least of the top log-probabilities; no token beyond the known ones has more."""
    children: dict[int, _Node] = field(default_factory=dict)

    def child(self, candidate: Candidate, index: int) -> _Node:
        token, trace = candidate.token_ids[index], candidate.trace
        logprob = float(trace.logprob[index])
        if trace.top_ids is not None and trace.top_logprobs is not None and trace.top_ids.size:
            tops = trace.top_logprobs[index].tolist()
            self.known.update(zip(trace.top_ids[index].tolist(), tops, strict=True))
            self.weakest = min(tops)
        self.known[token] = logprob
        return self.children.setdefault(token, _Node(self.logprob + logprob))

    def unseen(self) -> float:
        """Return the most that a way can have which leaves the tree here."""
        rest = max(1.0 - math.fsum(map(math.exp, self.known.values())), _LEAST_REST)
        others = [lp for token, lp in self.known.items() if token not in self.children]
        return self.logprob + max(min(math.log(rest), self.weakest), *others, -math.inf)


def _inner(root: _Node) -> Iterator[_Node]:
    yield root
    nodes = [root]
    while nodes:
        inner = [child for child in nodes.pop().children.values() if child.children]
        yield from inner
        nodes += inner
