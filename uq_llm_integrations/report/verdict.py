"""Conditions asked of metadata: what a framework hands on of an answer, rather than its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.records import Candidate, Result, Score, TokenTrace, Usage
from uq_llm_integrations.strategies.conditions import Condition


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
    """Finds a score by any of its method's names."""

    def __missing__(self, name: str) -> Score:
        wanted = find_method(name).name
        same = (one for told, one in self.items() if find_method(told).name == wanted)
        return next(same, Score(name, reason="it was not asked for"))


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
    """Return what the columns tell: log-probabilities, and the interval that holds the entropy.

    An exact entropy is one with equal ends; the other exact statistics are not handed on.
    """
    ends = {f"entropy_{end}": columns.get("entropy") for end in ("lower", "upper")}
    given: dict[str, Any] = {
        name: np.array(columns.get(name, entropy), np.float64)
        for name, entropy in ends.items()
        if name in columns or entropy is not None
    }
    return TokenTrace(0, np.array(columns.get("logprob", ()), np.float64), **given)
