"""What a backend can serve."""

from dataclasses import dataclass

MAX_N = 128
"""The most candidates that one request may ask for, unless the backend is given another cap."""


@dataclass(frozen=True)
class Capabilities:
    """What a backend can serve. None stands for what is not known before the engine runs."""

    model: str
    vocabulary_size: int | None
    context_length: int | None
    max_top_logprobs: int
    """The largest k for top log-probabilities, -1 for the whole vocabulary."""
    max_n: int
    """The most candidates that one request may ask for."""
    why_inexact: str | None = None
    """Why exact statistics cannot be had, None where they can."""
    why_no_activations: str | None = "it shows no hidden states and no attention"
    """Why hidden states and attention cannot be had, None where they can."""
