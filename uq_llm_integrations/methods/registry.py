"""The catalogue of methods, and how a name finds its method.

A method of another package is registered by `register_method`, or by an entry point of the group
`uq_llm_integrations.methods` that names a `Method` or a tuple of them:

    [project.entry-points."uq_llm_integrations.methods"]
    mine = "my_package.my_module:my_method"
"""

import copyreg
import logging
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from uq_llm_integrations.backends.base import Backend, Capabilities
from uq_llm_integrations.code_identity import is_own
from uq_llm_integrations.errors import (
    ConfigurationError,
    MethodUnavailableError,
    UnknownMethodError,
    described,
)
from uq_llm_integrations.methods import (
    alternatives,
    answer_spans,
    attention,
    calibrated,
    claims,
    hidden_states,
    logprob,
    prompting,
    sampling,
    sequence_entropy,
    similarity,
)
from uq_llm_integrations.methods.base import Method
from uq_llm_integrations.methods.options import MethodOptions
from uq_llm_integrations.methods.polygraph import unlisted_method

ENTRY_POINTS = "uq_llm_integrations.methods"
"""The group of entry points that other packages offer methods in."""

DEFAULT_METHODS = ("entropy", "perplexity", "maxprob")

METHODS: dict[str, Method] = {}
"""The methods registered so far, by name; `list_methods` loads those of other packages, too."""

_CPMI = (
    "it ranks backwards: each token of high entropy adds 3.6 times its log-probability without "
    "the prompt, which is negative, so a less certain answer has the lower value; mean_pmi is the "
    "method without the threshold"
)

WITHDRAWN = dict.fromkeys(
    (
        "mean_cpmi",
        "cpmi",
        "MeanConditionalPointwiseMutualInformation",
        "ConditionalPointwiseMutualInformation",
    ),
    _CPMI,
)
"""Names, lm-polygraph's included, of which higher is not more uncertain, and why."""

_log = logging.getLogger(__name__)
_by_name: dict[str, Method] = {}
_loaded: set[EntryPoint] = set()


def register_method(method: Method) -> Method:
    """Enter a method under all its names and return it.

    Raises ConfigurationError for a name that another method has already.

    Example:
        @register_method
        @evidence_method("brevity", summary="How short the answer is.", reference="my paper")
        async def brevity(context):
            return [1 / (1 + len(one.text)) for one in context.candidates]
    """
    if not isinstance(method, Method):
        made = "trace_method and evidence_method make one of a function"
        raise ConfigurationError(f"{described(method)} is no Method; {made}")
    taken = [name for name in method.names if _by_name.get(name, method) is not method]
    if taken:
        raise ConfigurationError(f"there is a method named {described(taken[0])} already")
    METHODS[method.name] = method
    _by_name.update(dict.fromkeys(method.names, method))
    return method


def list_methods() -> tuple[Method, ...]:
    """Return all methods, those of other packages' entry points last."""
    _load_entry_points()
    return tuple(METHODS.values())


def find_method(name: str) -> Method:
    """Return the method of this name, alias or lm-polygraph class.

    A class of the installed lm-polygraph that is not in the catalogue is made into a method where
    what it reads can be gathered; otherwise MethodUnavailableError says what is missing, as it
    does for a name that was withdrawn. Any other name raises UnknownMethodError, which names the
    nearest.

    Example:
        >>> find_method("entropy").name
        'MeanTokenEntropy'
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"{described(name)} is no name of a method")
    method = _by_name.get(name)
    if method is None:
        _load_entry_points()
        method = _by_name.get(name)
    if method is None and name in WITHDRAWN:
        raise MethodUnavailableError(f"{name} is not offered: {WITHDRAWN[name]}")
    if method is None:
        method = unlisted_method(name)
        if method is None:
            raise UnknownMethodError(name, _by_name)
        _by_name[name] = method
    return method


def check_methods(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple after making sure that each is known."""
    checked = (names,) if isinstance(names, str) else tuple(names)
    for name in checked:
        find_method(name)
    return checked


def check_available(
    methods: Iterable[str], capabilities: Capabilities, options: MethodOptions | None = None
) -> None:
    """Raise MethodUnavailableError for a method that the backend can give no number for."""
    for name in methods:
        if missing := find_method(name).missing(capabilities, options):
            raise MethodUnavailableError(f"{name} needs {missing}")


def missing_requirements(
    methods: Iterable[str] | None, backend: Backend, options: MethodOptions | None = None
) -> dict[str, str | None]:
    """Return for each method what it lacks on the backend, None where it works.

    None stands for all methods that are listed.

    Example:
        >>> missing_requirements(["entropy", "uhead"], ScriptedBackend(["Paris"]))["entropy"]
    """
    names = (one.name for one in list_methods()) if methods is None else methods
    return {name: find_method(name).missing(backend.capabilities, options) for name in names}


def affordable_methods(
    capabilities: Capabilities, options: MethodOptions | None = None
) -> tuple[str, ...]:
    """Return the names of all listed methods that lack nothing, of the backend or the options."""
    return tuple(one.name for one in list_methods() if one.missing(capabilities, options) is None)


def foreign_methods(text: str | None = None) -> dict[str, Method]:
    """Return the registered methods that are not of this package, by name.

    With a text, those of which it has a name.
    """
    found = {name: one for name, one in METHODS.items() if not is_own(one.function)}
    if text is None:
        return found
    return {name: one for name, one in found.items() if any(each in text for each in one.names)}


def _find_registered(name: str, module: str | None) -> Method:
    """Return a method in the process that a pickle of it is loaded in."""
    if name not in _by_name and module not in (None, "__main__"):
        import_module(module)
    return find_method(name)


def _reduced(method: Method) -> str | tuple[Any, ...]:
    """Pickle a registered method by its name: its function has often given its own name to it."""
    if _by_name.get(method.name) is not method:
        return method.__reduce_ex__(4)
    module = getattr(method.function, "__module__", None)
    return _find_registered, (method.name, module)


copyreg.pickle(Method, _reduced)


def _load_entry_points() -> None:
    """Register what entry points name; one that fails is logged, and costs no other method."""
    for point in entry_points(group=ENTRY_POINTS):
        if point in _loaded:
            continue
        _loaded.add(point)
        try:
            offered = point.load()
            for method in (offered,) if isinstance(offered, Method) else offered:
                register_method(method)
        except Exception as error:  # another package's code, and so anything
            _log.warning("the methods of the entry point %r are left out: %s", point.value, error)


for _family in (
    logprob,
    answer_spans,
    alternatives,
    sampling,
    sequence_entropy,
    similarity,
    hidden_states,
    attention,
    prompting,
    claims,
    calibrated,
):
    for _method in _family.METHODS:
        register_method(_method)
