"""What to sample, which candidate to return, and what to do about its scores."""

from uq_llm_integrations.strategies import (  # noqa: F401  # each enters its strategies
    abstain,
    best_of_n,
    retry,
    self_consistency,
    stepwise,
)
from uq_llm_integrations.strategies.base import STRATEGIES

__all__ = ["STRATEGIES"]
