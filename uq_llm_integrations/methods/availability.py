"""Which method can be had where, found before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.errors import MethodUnavailableError
from uq_llm_integrations.methods.base import Method
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.registry import METHODS, find_method

ELSEWHERE = "HuggingFaceBackend and HybridBackend can show them"


def missing(
    method: Method, capabilities: Capabilities, method_options: MethodOptions | None = None
) -> str | None:
    """Return what a method lacks on a backend, and where it would be had; None for nothing."""
    if method.needs == "distribution" and capabilities.why_inexact and not method.bounds:
        return f"exact statistics, which {capabilities.model} has not: {capabilities.why_inexact}"
    lacking = (_lacking(part, capabilities, method_options) for part in method.requirements)
    return next((words for words in lacking if words), None)


def _lacking(
    part: str, capabilities: Capabilities, method_options: MethodOptions | None
) -> str | None:
    density = method_options.density if method_options else None
    head = method_options.head if method_options else None
    match part:
        case "internals" if capabilities.why_no_activations:
            why = capabilities.why_no_activations
            return f"hidden states or attention, which cannot be had: {why}; {ELSEWHERE}"
        case "density" if density is None:
            return "a density fitted on training texts: MethodOptions(density=fit_density(...))"
        case "background" if density is not None and not density.has_background:
            return "a density fitted with a background: fit_density(..., background=...)"
        case "ranks" if density is not None and not density.has_ranks:
            return "a density fitted with the perplexities of its texts: fit_density(...)"
        case "head" if head is None:
            return "a head fitted on labelled answers: MethodOptions(head=fit_head(...))"
        case "claim head" if not hasattr(head, "doubts"):
            return "a head for claims: MethodOptions(head=LuhHead.from_pretrained(...))"
    return None


def check_available(
    methods: Sequence[str], capabilities: Capabilities, method_options: MethodOptions | None = None
) -> None:
    """Raise MethodUnavailableError for a method that the backend can give no number for."""
    for name in methods:
        lacking = missing(find_method(name), capabilities, method_options)
        if lacking:
            raise MethodUnavailableError(f"{name} needs {lacking}")


def check(
    methods: Sequence[str] | None, backend: Backend, method_options: MethodOptions | None = None
) -> dict[str, str | None]:
    """Return for each method what it lacks on the backend, None where it works.

    Without methods, all of the catalogue are looked at. Nothing is loaded.
    """
    return {
        name: missing(find_method(name), backend.capabilities, method_options)
        for name in (methods if methods is not None else METHODS)
    }
