"""The arguments of the client of servers, as configuration files and the classes are given them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from uq_llm_integrations.backends.server.backend import VLLMServerBackend
from uq_llm_integrations.errors import ConfigurationError, suggestion
from uq_llm_integrations.secret_names import sealed

SERVER_ARGUMENTS = frozenset(inspect.signature(VLLMServerBackend).parameters)
"""The names of all arguments."""


def server_backend(arguments: Mapping[str, object]) -> VLLMServerBackend:
    """Return the client that arguments describe; no server is asked yet.

    Raises ConfigurationError for arguments of an engine, which the server's own start has decided.

    Example:
        >>> type(server_backend({"base_url": "http://localhost:8000"})).__name__
        'VLLMServerBackend'
    """
    for name in sorted(arguments.keys() - SERVER_ARGUMENTS):
        near = suggestion(name, SERVER_ARGUMENTS)
        raise ConfigurationError(
            f"{name} is no argument of a client of servers; an engine's arguments are given to "
            f"`vllm serve` where base_url leads{near}"
        )
    if arguments.get("base_url") is None:
        raise ConfigurationError("base_url is missing: the address of a server, or a list of them")
    given: dict[str, object] = sealed(dict(arguments))
    return VLLMServerBackend(**given)  # type: ignore[arg-type]  # it checks them
