"""The tokens of an answer with what is known of each: what heat maps are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.records import Candidate, Floats

Numbers = tuple[float | None, ...]
"""[T], None where one is unknown."""


@dataclass(frozen=True)
class TokenValues(PlainRecord):
    """The texts of T tokens, with the entropy and the log-probability of each, in nats.

    Example:
        >>> TokenValues(("Par", "is"), logprob=(-0.1, -0.0)).surprisal
        (0.1, 0.0)
    """

    texts: tuple[str, ...]
    logprob: Numbers | None = None
    entropy: Numbers | None = None
    """Of the whole distribution; with `is_bound` the most that it can be."""
    is_bound: bool = False

    def __post_init__(self) -> None:
        rows = [one for one in (self.logprob, self.entropy) if one is not None]
        if any(len(one) != len(self.texts) for one in rows):
            raise ConfigurationError("texts, logprob and entropy must have one entry a token")

    @property
    def surprisal(self) -> Numbers | None:
        """[T] minus the log-probability of each token; higher is more uncertain."""
        if self.logprob is None:
            return None
        return tuple(None if one is None else abs(one) for one in self.logprob)


def of_candidate(candidate: Candidate, texts: Sequence[str]) -> TokenValues:
    """Return the values of a candidate, whose tokens have these texts."""
    trace = candidate.trace
    if trace.damage or len(trace) != len(texts):
        return TokenValues(tuple(texts))
    entropy = trace.entropy if trace.is_exact else trace.entropy_upper
    return TokenValues(
        tuple(texts),
        _numbers(trace.logprob),
        None if entropy is None else _numbers(entropy),
        is_bound=not trace.is_exact,
    )


def of_metadata(metadata: Mapping[str, Any]) -> TokenValues | None:
    """Return the values that an answer's metadata has with `token_scores`, None without them."""
    columns = metadata.get("by_token")
    if not isinstance(columns, Mapping) or "token" not in columns:
        return None
    exact, upper = columns.get("entropy"), columns.get("entropy_upper")
    entropy = upper if exact is None else exact
    logprob = columns.get("logprob")
    return TokenValues(
        tuple(columns["token"]),
        None if logprob is None else tuple(logprob),
        None if entropy is None else tuple(entropy),
        is_bound=exact is None and upper is not None,
    )


def _numbers(values: Floats) -> Numbers:
    return tuple(one if isfinite(one) else None for one in values.tolist())
