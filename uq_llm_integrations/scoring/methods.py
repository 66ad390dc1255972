"""The catalogue of methods, and how a name finds its method."""

from __future__ import annotations

from collections.abc import Iterable

from uq_llm_integrations.errors import UnknownMethodError
from uq_llm_integrations.scoring.catalogue.internals import ATTENTION_METHODS, HIDDEN_METHODS
from uq_llm_integrations.scoring.catalogue.prompting import PROMPTING_METHODS
from uq_llm_integrations.scoring.catalogue.sampling import SAMPLING_METHODS
from uq_llm_integrations.scoring.catalogue.trace import TRACE_METHODS
from uq_llm_integrations.scoring.catalogue.unconditional import UNCONDITIONAL_METHODS
from uq_llm_integrations.scoring.method import Method

_CATALOGUE = (
    *TRACE_METHODS,
    *UNCONDITIONAL_METHODS,
    *SAMPLING_METHODS,
    *HIDDEN_METHODS,
    *ATTENTION_METHODS,
    *PROMPTING_METHODS,
)

METHODS: dict[str, Method] = {method.name: method for method in _CATALOGUE}
"""All methods by lm-polygraph's names."""

ALIASES: dict[str, str] = {method.alias: method.name for method in _CATALOGUE if method.alias}
"""Shorter names."""

DEFAULT_METHODS = ("entropy", "perplexity", "maxprob")


def find_method(name: str) -> Method:
    """Return the method of this name or alias; raise UnknownMethodError for any other."""
    method = METHODS.get(ALIASES.get(name, name))
    if method is None:
        raise UnknownMethodError(name, [*METHODS, *ALIASES])
    return method


def check_methods(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple after making sure that each is known."""
    checked = (names,) if isinstance(names, str) else tuple(names)
    for name in checked:
        find_method(name)
    return checked
