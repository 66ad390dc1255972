"""Secrets in a configuration file come from the environment, and nothing else does."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from uq_llm_integrations.errors import ConfigurationError

SECRETS = frozenset({"api_key", "hf_token", "token"})

_REFERENCE = re.compile(r"\$\{(\w+)\}")


def with_secrets(value: Any, path: str = "") -> Any:
    """Return the configuration with `${NAME}` replaced where a secret belongs.

    Raises ConfigurationError for a reference anywhere else, and for a variable that is not set.
    """
    if isinstance(value, Mapping):
        return {key: with_secrets(part, f"{path}.{key}".lstrip(".")) for key, part in value.items()}
    if isinstance(value, list):
        return [with_secrets(part, f"{path}.{place}") for place, part in enumerate(value)]
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return _secret(found.group(1), path) if found else value


def _secret(variable: str, path: str) -> str:
    if path.rsplit(".", 1)[-1] not in SECRETS:
        allowed = ", ".join(sorted(SECRETS))
        raise ConfigurationError(f"{path}: only secrets come from the environment: {allowed}")
    if variable not in os.environ:
        raise ConfigurationError(f"{path}: the environment has no variable {variable}")
    return os.environ[variable]
