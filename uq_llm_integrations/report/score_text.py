"""What is known of a score, in words."""

from __future__ import annotations

from uq_llm_integrations.records import Score


def score_text(score: Score) -> str:
    """Return a score's value, or else its interval, its claims, its tokens, or "unknown".

    Example:
        >>> score_text(Score("entropy", lower=0.5, upper=1.25))
        '0.5000 to 1.2500'
    """
    if score.value is not None:
        return f"{score.value:.4f}"
    if score.lower is not None:
        return f"{score.lower:.4f} to {score.upper:.4f}"
    if score.claims is not None:
        return "; ".join(f"{claim.text!r} {claim.value:.2f}" for claim in score.claims)
    if score.tokens is not None:
        return " ".join(f"{value:.2f}" for value in score.tokens)
    return "unknown"
