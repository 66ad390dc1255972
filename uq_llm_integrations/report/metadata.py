"""Scores as plain, JSON-clean data: the same in every framework's response metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from uq_llm_integrations.methods.bounds import bounded
from uq_llm_integrations.records import Candidate, Result, TokenTrace

TokenTexts = Sequence[Sequence[str]] | None
"""For each candidate the texts of its tokens, or None to leave out what is known by token."""

_TOKEN_ARRAYS = ("logprob", "rank", "entropy", "varentropy", "entropy_lower", "entropy_upper")


def uncertainty_metadata(result: Result, index: int = 0) -> dict[str, Any]:
    """Return what is always told of one candidate.

    `scores` has a number or None for each sequence-level method. A None has its `reasons`, and its
    `intervals` where the top k bounds it, and `sources` say what judged texts. `token_scores` has
    the token-level methods, `claim_scores` those of claims. The first candidate's has the `usage`
    of all, and the `attempts` that were not kept.
    """
    candidate, scores = result.candidates[index], result.scores[index]
    sequence = {name: s for name, s in scores.items() if s.tokens is None and s.claims is None}
    metadata: dict[str, Any] = {
        "scores": {name: score.value for name, score in sequence.items()},
        "exact": candidate.trace.is_exact,
        "grammar": candidate.trace.grammar,
        "tokens": len(candidate.token_ids),
        "decision": result.decision.action,
        "uncertain": result.decision.is_uncertain,
    }
    optional: dict[str, Any] = {
        "condition": result.decision.condition,
        "original_text": None if result.decision.text is None else candidate.text,
        "error": candidate.error and str(candidate.error),
        "usage": asdict(result.usage) if index == 0 else None,
        "attempts": [
            {"text": one.candidate.text, "scores": _numbers(one)} for one in result.attempts
        ],
        "reasons": {name: s.reason for name, s in sequence.items() if s.reason},
        "intervals": {
            name: [s.lower, s.upper] for name, s in sequence.items() if s.lower is not None
        },
        "sources": {name: s.source for name, s in scores.items() if s.source},
        "token_scores": {
            name: list(s.tokens) for name, s in scores.items() if s.tokens is not None
        },
        "claim_scores": {
            name: [asdict(claim) for claim in s.claims]
            for name, s in scores.items()
            if s.claims is not None
        },
    }
    return metadata | {key: part for key, part in optional.items() if part or part == ""}


def _numbers(result: Result) -> dict[str, float | None]:
    return {name: score.value for name, score in result.scores[0].items()}


def token_metadata(candidate: Candidate, texts: Sequence[str]) -> dict[str, Any]:
    """Return one list a quantity, one entry a token; quantities that are not known are left out."""
    return token_columns(candidate.token_ids, candidate.trace, texts)


def token_columns(
    token_ids: Sequence[int], trace: TokenTrace, texts: Sequence[str]
) -> dict[str, Any]:
    """Return the same of some tokens."""
    trace = bounded(trace)
    arrays = {name: getattr(trace, name) for name in _TOKEN_ARRAYS}
    if trace.is_exact:
        del arrays["entropy_lower"], arrays["entropy_upper"]
    lists = {name: array.tolist() for name, array in arrays.items() if array is not None}
    return {"token": list(texts), "token_id": list(token_ids), **lists}


def token_usage(results: Sequence[Result]) -> dict[str, int]:
    """Return the usage of results in the shape of OpenAI's API; a prompt counts once."""
    prompt = sum(result.usage.prompt_tokens for result in results)
    completion = sum(result.usage.generated_tokens for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def result_metadata(result: Result, texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return a whole result: each candidate's text, scores and tokens, and the usage."""
    return {
        "candidates": [
            {
                "text": candidate.text,
                "finish_reason": candidate.finish_reason,
                "uncertainty": uncertainty_metadata(result, index),
                "tokens": token_metadata(candidate, texts[index]),
            }
            for index, candidate in enumerate(result.candidates)
        ],
        "usage": asdict(result.usage),
    }
