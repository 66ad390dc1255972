"""Conditions asked of metadata: what a framework hands on of an answer, rather than its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from uq_llm_integrations.decoding.conditions import Condition
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Candidate, Result, Score, TokenTrace, Usage


def check_verdict(when: Condition) -> None:
    """Raise ConfigurationError for a condition that metadata of one answer can never tell."""
    if when.needs_samples:
        raise ConfigurationError(f"{when!r} compares samples, but only one answer is handed on")


def is_uncertain(when: Condition | None, uncertainty: Mapping[str, Any] | None) -> bool:
    """Return whether an answer is too uncertain; what is not known counts as uncertain.

    Without a condition, the model's own decision counts (`uncertain_when` of its class). Windows
    over tokens need metadata with `token_scores=True`.
    """
    if uncertainty is None:
        return True
    if when is None:
        return bool(uncertainty.get("uncertain", True))
    return when(_view(uncertainty)) is not False


class _Scores(dict[str, Score]):
    def __missing__(self, name: str) -> Score:
        return Score(name, reason="it was not asked for")


def _view(uncertainty: Mapping[str, Any]) -> Result:
    reasons, intervals = uncertainty.get("reasons", {}), uncertainty.get("intervals", {})
    scores = _Scores()
    for name, value in uncertainty.get("scores", {}).items():
        lower, upper = intervals.get(name, (None, None))
        scores[name] = Score(name, value, reasons.get(name), lower, upper)
    trace = _trace(uncertainty.get("by_token", {}))
    candidate = Candidate((), (), "", trace, "stop")
    return Result((candidate,), (scores,), Usage())


def _trace(columns: Mapping[str, list[float]]) -> TokenTrace:
    names = ("logprob", "entropy", "varentropy", "entropy_lower", "entropy_upper")
    given = {name: np.array(columns[name], np.float64) for name in names if name in columns}
    return TokenTrace(0, given.pop("logprob", np.zeros(0)), **given)
