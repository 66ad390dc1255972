"""Methods that ask the model about its answer, or read what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uq_llm_integrations.methods.base import Own, evidence_method
from uq_llm_integrations.records import Candidate


def _doubt(name: str) -> Own:
    def doubt(candidate: Candidate, gathered: Mapping[str, Any]) -> float | None:
        sure: float | None = gathered[name]
        return None if sure is None else 1.0 - sure

    return doubt


PROMPTING_METHODS = (
    evidence_method(
        "PTrue", "p_true", "p_true:PTrue",
        "prompting", "p_true", "https://arxiv.org/abs/2207.05221",
        "Negative log-probability that the model calls its answer true; nats.",
    ),
    evidence_method(
        "PTrueSampling", "p_true_sampling", "p_true_sampling:PTrueSampling",
        "prompting", "p_true_sampling", "https://arxiv.org/abs/2207.05221",
        "The same where the model is shown the samples, too.",
    ),
    evidence_method(
        "PTrueEmpirical", "p_true_empirical", "",
        "prompting", "p_true_empirical", "https://arxiv.org/abs/2207.05221",
        "Share of ten replies that do not call the answer true; 0 to 1.",
        own=_doubt("p_true_empirical"),
    ),
    evidence_method(
        "Verbalized1S", "verbalized_1s", "",
        "prompting", "stated_confidence_1s", "https://arxiv.org/abs/2305.14975",
        "1 less the confidence that the answer itself states; 0 to 1.",
        own=_doubt("stated_confidence_1s"),
    ),
    evidence_method(
        "Verbalized2S", "verbalized_2s", "",
        "prompting", "stated_confidence_2s", "https://arxiv.org/abs/2305.14975",
        "1 less the confidence that the model states when asked for it; 0 to 1.",
        own=_doubt("stated_confidence_2s"),
    ),
    evidence_method(
        "Linguistic1S", "linguistic", "",
        "prompting", "hedge", "https://arxiv.org/abs/2305.14975",
        "1 less the confidence that the answer's words stand for; 0 to 1.",
        own=_doubt("hedge"),
    ),
)  # fmt: skip  # a table, one method a block
