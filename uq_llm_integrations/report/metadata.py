"""Scores as plain, JSON-clean data, the same in every framework's response metadata, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError, described
from uq_llm_integrations.methods.bounds import bounded
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.records import (
    ERROR_PROBABILITY,
    NOT_REQUESTED,
    Result,
    Score,
    TokenTrace,
    confidence_of,
)
from uq_llm_integrations.report.given_metadata import given_metadata, given_part
from uq_llm_integrations.strategies.conditions import Comparison, Condition

Metadata = dict[str, Any]

_TOKEN_ARRAYS = ("logprob", "rank", "entropy", "varentropy", "entropy_lower", "entropy_upper")


def uncertainty_metadata(result: Result, index: int = 0) -> Metadata:
    """Return the metadata of one candidate.

    `confidence`, where the model is calibrated, is how probable it is that the answer is right.
    `scores` has a number or None for each sequence-level method. A None has its `reasons`, and its
    `intervals` where the top k bounds it, and `sources` say what judged texts. `token_scores` has
    the token-level methods, `claim_scores` those of claims. The first candidate's has the `usage`
    of all, and the `attempts` that were not kept.
    """
    candidate, scores = result.candidates[index], result.scores[index]
    sequence = {name: s for name, s in scores.items() if s.tokens is None and s.claims is None}
    metadata: Metadata = {
        "scores": {name: score.value for name, score in sequence.items()},
        "exact": candidate.trace.is_exact,
        "grammar": candidate.trace.grammar,
        "tokens": len(candidate.token_ids),
        **_confidence(scores),
        "decision": result.decision.action,
        "uncertain": result.decision.is_uncertain,
        "sampling": result.sampling_end.kind,
    }
    optional: Metadata = {
        "condition": result.decision.condition,
        "sampling_reason": result.sampling_end.reason,
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


def _confidence(scores: Mapping[str, Score]) -> Metadata:
    """Return the confidence, where the model is calibrated; None where it is unknown."""
    is_calibrated = any(one.method == ERROR_PROBABILITY for one in scores.values())
    return {"confidence": confidence_of(scores)} if is_calibrated else {}


def _numbers(result: Result) -> dict[str, float | None]:
    return {name: score.value for name, score in result.scores[0].items()}


def token_metadata(
    token_ids: Sequence[int], trace: TokenTrace, texts: Sequence[str]
) -> dict[str, list[Any]]:
    """Return one list a quantity, one entry a token; quantities that are not known are left out."""
    if trace.damage:
        return {"token": list(texts), "token_id": list(token_ids)}
    trace = bounded(trace)
    arrays = {name: getattr(trace, name) for name in _TOKEN_ARRAYS}
    if trace.is_exact:
        del arrays["entropy_lower"], arrays["entropy_upper"]
    lists = {name: array.tolist() for name, array in arrays.items() if array is not None}
    return {"token": list(texts), "token_id": list(token_ids), **lists}


def token_usage(results: Sequence[Result]) -> Metadata:
    """Return the usage of results in the shape of OpenAI's API.

    The prompt counts once for all samples of a request, and again for each further request. All
    that was generated counts; `chosen_tokens` of it are those of the chosen candidates.
    """
    prompt = sum(result.usage.prompt_tokens for result in results)
    completion = sum(result.usage.generated_tokens for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"chosen_tokens": sum(map(chosen_tokens, results))},
    }


def chosen_tokens(result: Result) -> int:
    """Return how many tokens the chosen candidate has."""
    return len(result.candidate.token_ids)


def result_metadata(result: Result, texts: Sequence[Sequence[str]]) -> Metadata:
    """Return a whole result: each candidate's text, scores and tokens, and the usage."""
    return {
        "candidates": [
            {
                "text": candidate.text,
                "finish_reason": candidate.finish_reason,
                "uncertainty": uncertainty_metadata(result, index),
                "tokens": token_metadata(candidate.token_ids, candidate.trace, texts[index]),
            }
            for index, candidate in enumerate(result.candidates)
        ],
        "usage": asdict(result.usage),
    }


LEAST = -9999.0
"""What stands for minus infinity, which JSON has not, as in OpenAI's API."""


def top_tokens(trace: TokenTrace, k: int) -> list[list[tuple[int, float]]]:
    """Return the k alternatives of each token with their log-probabilities, the likeliest first."""
    if trace.top_ids is None or trace.top_logprobs is None:
        return [[] for _ in range(len(trace))]
    rows = zip(trace.top_ids, trace.top_logprobs, strict=True)
    return [
        [(int(ids[one]), float(logprobs[one])) for one in best]
        for ids, logprobs in rows
        for best in [np.argsort(-logprobs, kind="stable")[: None if k < 0 else k]]
    ]


def openai_logprobs(
    trace: TokenTrace,
    texts: Sequence[str],
    top: Sequence[Sequence[tuple[int, float]]],
    top_texts: Sequence[Sequence[str]],
) -> list[Metadata]:
    """Return an entry for each token, with its alternatives of `top_tokens` and their texts.

    The bytes are those of the text: a character's come with the token that completes it.
    """
    columns = zip(texts, trace.logprob.tolist(), top, top_texts, strict=True)
    return [
        _entry(text, logprob) | {"top_logprobs": _top(row, names)}
        for text, logprob, row, names in columns
    ]


def _top(row: Sequence[tuple[int, float]], texts: Sequence[str]) -> list[Metadata]:
    pairs = zip(texts, row, strict=True)
    return [_entry(text, logprob) for text, (_, logprob) in pairs]


def _entry(text: str, logprob: float) -> Metadata:
    return {"token": text, "bytes": list(text.encode()), "logprob": max(logprob, LEAST)}


class MetadataView:
    """Reads metadata as conditions read a result: by `score(name)` and `trace`.

    Example:
        >>> MetadataView({"scores": {"entropy": 0.3}}).score("entropy").value
        0.3
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata

    @property
    def trace(self) -> TokenTrace:
        """The log-probabilities and the interval that holds the entropy, with `token_scores`.

        An exact entropy is one with equal ends; other exact statistics are not in the metadata.
        """
        columns = self._metadata.get("by_token", {})
        ends = {f"entropy_{end}": columns.get("entropy") for end in ("lower", "upper")}
        given: dict[str, Any] = {
            name: np.array(columns.get(name, entropy), np.float64)
            for name, entropy in ends.items()
            if name in columns or entropy is not None
        }
        return TokenTrace(0, np.array(columns.get("logprob", ()), np.float64), **given)

    @property
    def support(self) -> float | None:
        """By how many nats sources support the answer, None where that is not known."""
        found: float | None = self._metadata.get(GROUNDING, {}).get("support")
        return found

    def score(self, name: str) -> Score:
        """Return a score by any of its method's names."""
        scores = self._metadata.get("scores", {})
        if name not in scores:
            wanted = find_method(name)
            same = (one for one in scores if find_method(one) is wanted)
            name = next(same, name)
        if name not in scores:
            return Score(name, reason=NOT_REQUESTED)
        lower, upper = self._metadata.get("intervals", {}).get(name, (None, None))
        reason = self._metadata.get("reasons", {}).get(name)
        return Score(name, scores[name], reason, lower, upper)


APPROVED = "approved"
"""The key under which metadata of an answer, or of a part of it, say that a person let it pass."""

GROUNDING = "grounding"
"""The key under which metadata say how far an answer rests on its sources."""

UNSCORED = (
    "the answer has no scores: it is another provider's, or has lost them on the way; put the gate "
    "right behind one of this package's models, or let it pass with allow_unscored=True"
)

_HELD = TokenTrace(0, np.zeros(1), entropy_lower=np.zeros(1), entropy_upper=np.zeros(1))
"""What metadata can hold of a token."""


def check_metadata_condition(when: Condition | None) -> None:
    """Raise ConfigurationError for a condition that metadata of one answer cannot answer."""
    if when is None:
        return
    if when.needs_samples:
        raise ConfigurationError(
            f"{described(when)} compares samples, but only one answer is handed on"
        )
    for one in when.literals():
        if not isinstance(one, Comparison):
            raise ConfigurationError(
                f"{described(one)} reads a whole result, but only scores are handed on"
            )
    for name in when.token_methods:
        if not _is_held(name):
            raise ConfigurationError(
                f"{described(when)} reads {name} token by token, but only the log-probability and "
                "the entropy of each token are handed on"
            )


def _is_held(name: str) -> bool:
    """Return whether a method's values over tokens can be had of metadata."""
    values = find_method(name).values
    try:
        return values is not None and values(_HELD) is not None
    except Exception:  # a method of the user's, which may take other traces
        return True


def is_uncertain(
    when: Condition | None, metadata: Mapping[str, Any] | None, *, allow_unscored: bool = False
) -> bool:
    """Return whether an answer is too uncertain; what is not known counts as uncertain.

    Without a condition, the model's own decision counts (`uncertain_when` of its class). What a
    person has approved is not uncertain, nor is what has no scores, with `allow_unscored`.

    Raises InvalidRequestError for what has no scores otherwise, and where the model did not compute
    what the condition needs: windows over tokens need metadata with `token_scores=True`; also for
    metadata that cannot be read.
    """
    if metadata is None:
        if allow_unscored:
            return False
        raise InvalidRequestError(UNSCORED)
    metadata = given_metadata(metadata)
    if metadata.get(APPROVED):
        return False
    if when is None:
        return bool(metadata.get("uncertain", True))
    if when.needs_sources and GROUNDING not in metadata:
        raise InvalidRequestError(
            f"the condition {described(when)} reads how sources support the answer, which was not "
            "measured; an UncertaintyQueryEngine with grounding=True does"
        )
    if when.token_methods and "by_token" not in metadata:
        raise InvalidRequestError(
            f"the condition {described(when)} reads {', '.join(when.token_methods)} token by "
            "token, which was not handed on; give the model token_scores=True"
        )
    return when.is_met(MetadataView(metadata))


def part_metadata(whole: Mapping[str, Any], part: Mapping[str, Any]) -> Metadata:
    """Return the metadata of a part of an answer, such as a call, in the form of an answer's.

    Methods that score whole answers alone have the whole's score. Raises InvalidRequestError for
    metadata that cannot be read.
    """
    whole, part = given_metadata(whole), given_part(part)
    own = part.get("scores", {})
    shared = {"uncertain": whole.get("uncertain", True), APPROVED: whole.get(APPROVED, False)}
    merged: Metadata = {**shared, **part}
    merged["scores"] = {**whole.get("scores", {}), **own}
    for key in ("reasons", "intervals"):
        merged[key] = {name: one for name, one in whole.get(key, {}).items() if name not in own}
    if "by_token" in whole:
        first, last = part.get("tokens", (0, None))
        columns = whole["by_token"].items()
        merged["by_token"] = {
            name: one[first:last] for name, one in columns if isinstance(one, list)
        }
    return merged
