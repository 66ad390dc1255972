"""The catalogue of methods, and how a name finds its method."""

from __future__ import annotations

from collections.abc import Iterable

from uq_llm_integrations.errors import UnknownMethodError
from uq_llm_integrations.methods.base import Method
from uq_llm_integrations.methods.catalogue.alternatives import ALTERNATIVES_METHODS
from uq_llm_integrations.methods.catalogue.claims import CLAIM_METHODS
from uq_llm_integrations.methods.catalogue.internals import ATTENTION_METHODS, HIDDEN_METHODS
from uq_llm_integrations.methods.catalogue.prompting import PROMPTING_METHODS
from uq_llm_integrations.methods.catalogue.sampling import SAMPLING_METHODS
from uq_llm_integrations.methods.catalogue.trace import TRACE_METHODS
from uq_llm_integrations.methods.catalogue.unconditional import UNCONDITIONAL_METHODS
from uq_llm_integrations.methods.unlisted import unlisted_method

_CATALOGUE = (
    *TRACE_METHODS,
    *UNCONDITIONAL_METHODS,
    *ALTERNATIVES_METHODS,
    *SAMPLING_METHODS,
    *HIDDEN_METHODS,
    *ATTENTION_METHODS,
    *PROMPTING_METHODS,
    *CLAIM_METHODS,
)

METHODS: dict[str, Method] = {method.name: method for method in _CATALOGUE}
"""The catalogue, by lm-polygraph's names."""

ALIASES: dict[str, str] = {method.alias: method.name for method in _CATALOGUE if method.alias}
"""Shorter names."""

DEFAULT_METHODS = ("entropy", "perplexity", "maxprob")


_CLASSES = {method.estimator.partition(":")[2]: method.name for method in reversed(_CATALOGUE)}
"""lm-polygraph's classes -> the first method of each, for classes with other names."""


def find_method(name: str) -> Method:
    """Return the method of this name, alias or lm-polygraph class.

    A class of the installed lm-polygraph that is not in the catalogue is made into a method where
    what it reads can be gathered; otherwise MethodUnavailableError tells what is missing. Any
    other name raises UnknownMethodError.
    """
    method = METHODS.get(ALIASES.get(name, name)) or METHODS.get(_CLASSES.get(name, ""))
    method = method or unlisted_method(name)
    if method is None:
        raise UnknownMethodError(name, [*METHODS, *ALIASES])
    return method


def check_methods(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple after making sure that each is known."""
    checked = (names,) if isinstance(names, str) else tuple(names)
    for name in checked:
        find_method(name)
    return checked
