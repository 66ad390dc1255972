"""Why an estimator has no number for what was gathered: inputs that its formula divides by zero."""

from collections.abc import Callable, Mapping

import numpy as np

from uq_llm_integrations.errors import EvidenceError
from uq_llm_integrations.records import Floats


def checked_shares(shares: Floats, pairs: int) -> Floats:
    """Return what an entailment judge gave, [pairs, 3] probabilities, or raise EvidenceError."""
    found = checked_judgements(shares, (pairs, 3), "entailment")
    if pairs and (found.sum(-1) <= 0).any():
        raise EvidenceError(
            "the judge of entailment gives a pair of texts no probability at all: neither that "
            "the second follows, nor that it does not, nor that it is contradicted"
        )
    return found


def checked_judgements(values: Floats, shape: tuple[int, ...], what: str) -> Floats:
    """Return what a judge gave, numbers from 0 to 1 of this shape, or raise EvidenceError."""
    found = np.asarray(values, np.float64)
    if found.shape != shape:
        raise EvidenceError(f"the judge of {what} gave {found.shape} numbers instead of {shape}")
    if not np.isfinite(found).all():
        raise EvidenceError(f"the judge of {what} gave {_first(found, ~np.isfinite(found))}")
    rounding = 1e-6
    outside = (found < -rounding) | (found > 1 + rounding)
    if outside.any():
        raise EvidenceError(f"the judge of {what} gave {_first(found, outside)}, not 0 to 1")
    return np.clip(found, 0.0, 1.0)


def _first(values: Floats, which: np.ndarray) -> float:
    return float(values[which][0])


def why_undefined(given: Mapping[str, object]) -> str | None:
    """Return what is degenerate in an estimator's statistics, None where nothing known is."""
    checks = ((DEGENERATE[name], value) for name, value in given.items() if name in DEGENERATE)
    return next((words for check, value in checks if (words := check(value))), None)


def _no_token_weighs(rows: object) -> str | None:
    """Say so where some text stays the same without any one of its tokens."""
    texts = rows if isinstance(rows, list) else [rows]
    if all(np.sum(1 - np.asarray(one, np.float64)) > 0 for one in texts):
        return None
    return (
        "no token has a weight: without any one of them, the text is as similar to itself as "
        "it is whole (all similarities are 1)"
    )


def _none_entails(matrix: object) -> str | None:
    degrees = np.asarray(matrix, np.float64)
    if ((degrees + degrees.T).sum(-1) > 0).all():
        return None
    return "a sample entails none, not even itself, so it has no place in the graph of samples"


def _none_similar(matrix: object) -> str | None:
    if np.asarray(matrix, np.float64).any():
        return None
    return "no sample is similar to any (all similarities are 0)"


def _all_neutral(matrix: object) -> str | None:
    if np.isfinite(np.asarray(matrix, np.float64)).all():
        return None
    return "two samples neither entail nor contradict one another, of which the score is the share"


DEGENERATE: Mapping[str, Callable[[object], str | None]] = {
    "token_similarity": _no_token_weighs,
    "sample_token_similarity": _no_token_weighs,
    "semantic_matrix_entail": _none_entails,
    "semantic_matrix_entail_logits": _all_neutral,
    "sample_sentence_similarity": _none_similar,
}
"""lm-polygraph's name of a statistic -> returns why a formula of it may have no value."""
