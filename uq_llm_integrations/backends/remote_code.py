"""Programs that come with a model: run only where two hands say so.

The argument alone could come out of a configuration file, or a saved object, of somebody else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from uq_llm_integrations.errors import ConfigurationError

ARGUMENT = "trust_remote_code"

VARIABLE = "UQ_LLM_ALLOW_REMOTE_CODE"
"""Has to be 1, in the environment of this process, beside the argument."""


def check_remote_code(arguments: Mapping[str, object]) -> None:
    """Raise ConfigurationError for `trust_remote_code` that the environment does not allow.

    Example:
        >>> check_remote_code({"trust_remote_code": False})
    """
    if arguments.get(ARGUMENT) and os.environ.get(VARIABLE) != "1":
        raise ConfigurationError(
            f"{ARGUMENT} runs a program that comes with the model; where you trust it, set "
            f"{VARIABLE}=1 in the environment, too"
        )
