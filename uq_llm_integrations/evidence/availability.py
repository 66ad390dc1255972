"""Which method can be had where, found before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.errors import MethodUnavailableError
from uq_llm_integrations.evidence.assessment import Assessment
from uq_llm_integrations.scoring.method import Method
from uq_llm_integrations.scoring.methods import METHODS, find_method

ELSEWHERE = "HuggingFaceBackend and HybridBackend can show them"


def missing(
    method: Method, capabilities: Capabilities, assessment: Assessment | None = None
) -> str | None:
    """Return what a method lacks on a backend, and where it would be had; None for nothing."""
    if method.needs == "distribution" and capabilities.why_inexact and not method.bounds:
        return f"exact statistics, which {capabilities.model} has not: {capabilities.why_inexact}"
    lacking = (_lacking(part, capabilities, assessment) for part in method.requirements)
    return next((words for words in lacking if words), None)


def _lacking(part: str, capabilities: Capabilities, assessment: Assessment | None) -> str | None:
    density = assessment.density if assessment else None
    head = assessment.head if assessment else None
    match part:
        case "internals" if capabilities.why_no_internals:
            why = capabilities.why_no_internals
            return f"hidden states or attention, which cannot be had: {why}; {ELSEWHERE}"
        case "density" if density is None:
            return "a density fitted on training texts: Assessment(density=fit_density(...))"
        case "background" if density is not None and not density.has_background:
            return "a density fitted with a background: fit_density(..., background=...)"
        case "ranks" if density is not None and not density.has_ranks:
            return "a density fitted with the perplexities of its texts: fit_density(...)"
        case "head" if head is None:
            return "a head fitted on labelled answers: Assessment(head=fit_head(...))"
        case "claim head" if not hasattr(head, "doubts"):
            return "a head for claims: Assessment(head=LuhHead.from_pretrained(...))"
    return None


def check_available(
    methods: Sequence[str], capabilities: Capabilities, assessment: Assessment | None = None
) -> None:
    """Raise MethodUnavailableError for a method that the backend can give no number for."""
    for name in methods:
        lacking = missing(find_method(name), capabilities, assessment)
        if lacking:
            raise MethodUnavailableError(f"{name} needs {lacking}")


def check(
    methods: Sequence[str] | None, backend: Backend, assessment: Assessment | None = None
) -> dict[str, str | None]:
    """Return for each method what it lacks on the backend, None where it works.

    Without methods, all of the catalogue are looked at. Nothing is loaded.
    """
    return {
        name: missing(find_method(name), backend.capabilities, assessment)
        for name in (methods if methods is not None else METHODS)
    }
