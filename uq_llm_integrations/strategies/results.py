"""From candidates to a result: scored, counted, and in order, by a score or by votes."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from uq_llm_integrations.methods.bounds import bounded
from uq_llm_integrations.methods.scoring import score_candidate
from uq_llm_integrations.records import Candidate, Request, Result, SamplingEnd, Score, Usage
from uq_llm_integrations.strategies.answers import Answer

Key = Callable[[int], tuple[object, ...]]
"""What the candidates of a result are sorted by, from their index."""


def scored_result(
    candidates: Sequence[Candidate], methods: Iterable[str], seconds: float, request: Request
) -> Result:
    """Return the candidates of one prompt with the scores of their traces, and what they cost.

    Those of the methods that need more than a trace are left out. Tokens are counted as saved up
    to the `max_tokens` of the request.
    """
    known = tuple(
        one if one.trace.missing_mass is not None else replace(one, trace=bounded(one.trace))
        for one in candidates
    )
    scores = tuple(score_candidate(one, methods) for one in known)
    return Result(known, scores, _usage(known, seconds, request.sampling.get("max_tokens")))


def _usage(candidates: Sequence[Candidate], seconds: float, max_tokens: int | None) -> Usage:
    generated = [len(one.token_ids) for one in candidates if one.finish_reason]
    scored = [len(one.token_ids) for one in candidates if not one.finish_reason]
    cut = [len(c.token_ids) for c in candidates if c.finish_reason in {"abort", "early_stop"}]
    return Usage(
        prompt_tokens=len(candidates[0].prompt_ids),
        generated_tokens=sum(generated),
        scored_tokens=sum(scored),
        cached_tokens=next((one.cached_tokens for one in candidates if not one.error), 0),
        saved_tokens=sum(max_tokens - tokens for tokens in cut) if max_tokens else 0,
        forward_passes=max(generated, default=0) + bool(scored),
        seconds=seconds,
    )


def ordered(result: Result, key: Key) -> Result:
    """Return the result with its candidates from the lowest key of their index to the highest."""
    order = sorted(range(len(result.candidates)), key=key)
    return replace(
        result,
        candidates=tuple(result.candidates[i] for i in order),
        scores=tuple(result.scores[i] for i in order),
    )


def concluded(result: Result) -> Result:
    """Return the result, marked as uncertain where its candidate came to no end of its own."""
    if result.candidate.is_whole:
        return result
    reason = f"the answer ended by {result.candidate.finish_reason}"
    end = SamplingEnd(
        "failed" if result.candidate.finish_reason == "error" else "stopped_early", reason
    )
    if result.sampling_end.kind == "failed":
        end = result.sampling_end
    decision = replace(result.decision, condition=reason, is_uncertain=True)
    return replace(result, decision=decision, sampling_end=end)


def merged(first: Result, second: Result) -> Result:
    """Return one result of the candidates of both."""
    return replace(
        first,
        candidates=first.candidates + second.candidates,
        scores=first.scores + second.scores,
        usage=first.usage + second.usage,
    )


def rank(candidate: Candidate, score: Score) -> tuple[int, float, tuple[int, ...]]:
    """Return what sorts the least uncertain first and the unknown last.

    A score that is only bounded stands behind all known ones, by its upper bound. Equals are
    ordered by their tokens, so that the order in which they were sampled never matters.
    """
    if not candidate.is_whole:
        return 3, 0.0, candidate.token_ids
    if score.value is not None:
        return 0, score.value, candidate.token_ids
    if score.upper is not None:
        return 1, score.upper, candidate.token_ids
    return 2, 0.0, candidate.token_ids


def lowest(result: Result, method: str) -> Key:
    """Return the key by which the least uncertain candidate comes first."""

    def key(index: int) -> tuple[object, ...]:
        return rank(result.candidates[index], result.scores[index][method])

    return key


def by_votes(result: Result, method: str, answer: Answer, votes: Callable[[int], float]) -> Key:
    """Return the key by which the answer with the most votes comes first.

    Among the candidates that give it, the least uncertain by `method` stands for it.
    """
    own, totals = lowest(result, method), vote_totals(result, answer, votes)

    def key(index: int) -> tuple[object, ...]:
        candidate = result.candidates[index]
        if not candidate.is_whole:
            return 1, 0.0, "", own(index)
        given = answer(candidate.text)
        return 0, -totals[given], given, own(index)

    return key


def vote_totals(result: Result, answer: Answer, votes: Callable[[int], float]) -> dict[str, float]:
    """Return the votes of each answer; candidates that came to no end of their own have none.

    The sum does not depend on the order of the candidates (`math.fsum`).
    """
    ballots: dict[str, list[float]] = defaultdict(list)
    for index, candidate in enumerate(result.candidates):
        if candidate.is_whole:
            ballots[answer(candidate.text)].append(votes(index))
    return {given: math.fsum(cast) for given, cast in ballots.items()}
