"""lm-polygraph's estimators, loaded one file at a time.

`import lm_polygraph` takes from 15 seconds to a minute, since it brings spaCy, datasets, fastchat
and more. The estimators used here need numpy and scipy only, so their own files are loaded under a
private package name, and lm-polygraph itself stays untouched for anyone who imports it.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from uq_llm_integrations.errors import MissingDependencyError

_PACKAGE = "_uq_lm_polygraph_estimators"


class Estimator(Protocol):
    """An lm-polygraph estimator: from named statistics of a batch to one entry for each member."""

    def __call__(self, stats: dict[str, Any]) -> Any:
        """Return the scores of the batch that `stats` describes."""


class _Base:
    """Stands in for lm-polygraph's base class, whose file imports the whole package."""

    def __init__(self, stats_dependencies: list[str], level: str) -> None:
        self.stats_dependencies = stats_dependencies
        self.level = level


@cache
def load_estimator(path: str) -> Estimator:
    """Return the estimator that `module:Class` names within `lm_polygraph.estimators`."""
    module_name, class_name = path.split(":")
    module = import_module(f"{_package()}.{module_name}")
    estimator: Estimator = getattr(module, class_name)()
    return estimator


@cache
def _package() -> str:
    spec = find_spec("lm_polygraph")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("lm-polygraph", "polygraph")
    package, base = ModuleType(_PACKAGE), ModuleType(f"{_PACKAGE}.estimator")
    package.__path__ = [str(Path(spec.origin).parent / "estimators")]
    base.Estimator = _Base  # type: ignore[attr-defined]  # a module made by hand
    sys.modules[package.__name__] = package
    sys.modules[base.__name__] = base
    return _PACKAGE
