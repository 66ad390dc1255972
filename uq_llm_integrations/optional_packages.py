"""Packages that come with an extra of this one, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from uq_llm_integrations.errors import MissingDependencyError


def optional_module(name: str, extra: str) -> ModuleType:
    """Import a module that comes with an extra.

    Raises MissingDependencyError, which says how to install it, where it is missing.

    Example:
        optional_module("scipy.special", "calibration").bdtr(0, 29, 0.1)
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingDependencyError(name.partition(".")[0], extra) from error
