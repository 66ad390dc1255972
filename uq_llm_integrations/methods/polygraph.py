"""lm-polygraph's estimators, loaded one file at a time.

`import lm_polygraph` takes from 15 seconds to a minute, since it brings spaCy, datasets, fastchat
and more. The estimators used here need numpy and scipy only (those of density torch and
scikit-learn too), so their own files are loaded under a private package name, and lm-polygraph
itself stays untouched for anyone who imports it.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from threading import Lock
from types import CodeType, ModuleType
from typing import Any, Protocol

from uq_llm_integrations.errors import MissingDependencyError

_PACKAGE = "_uq_lm_polygraph_estimators"
_INSTEAD = {
    b"from lm_polygraph.estimators.": f"from {_PACKAGE}.".encode(),
    # It is named in annotations only, and its file imports the whole package.
    b"from lm_polygraph.stat_calculators.extract_claims import Claim": b"Claim = object",
}
_loading = Lock()


class Estimator(Protocol):
    """An lm-polygraph estimator: from named statistics of a batch to one entry for each member."""

    stats_dependencies: list[str]
    level: str

    def __call__(self, stats: dict[str, Any]) -> Any:
        """Return the scores of the batch that `stats` describes."""


class _Base:
    """Stands in for lm-polygraph's base class, whose file imports the whole package."""

    def __init__(self, stats_dependencies: list[str], level: str) -> None:
        self.stats_dependencies = stats_dependencies
        self.level = level


class _Loader(SourceFileLoader):
    """Loads an estimator's file so that it finds the stand-in by an absolute import too."""

    def get_code(self, fullname: str) -> CodeType:
        # Neither read from nor written to the cached bytecode, which belongs to lm-polygraph.
        source = self.get_data(self.path)
        for theirs, ours in _INSTEAD.items():
            source = source.replace(theirs, ours)
        return self.source_to_code(source, self.path)


def load_estimator(path: str, **arguments: Any) -> Estimator:
    """Return a new estimator of the class `module:Class` within `lm_polygraph.estimators`.

    The module of one in a folder has a dot in its name: `claim.perplexity:PerplexityClaim`.

    It is for one batch: some keep what they saw of their first (EigenScore the width of the model,
    AttentionScore the layer, those of density their fit), others of their last.
    """
    module_name, class_name = path.split(":")
    with _loading:
        module = _module(module_name)
    estimator: Estimator = getattr(module, class_name)(**arguments)
    return estimator


@cache
def package_folder() -> Path:
    """Return the folder that lm-polygraph is installed in, without importing it."""
    spec = find_spec("lm_polygraph")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("lm-polygraph", "polygraph")
    return Path(spec.origin).parent


def estimator_file(module: str) -> Path:
    """Return the file of a module within `lm_polygraph.estimators`."""
    return package_folder().joinpath("estimators", *module.split(".")).with_suffix(".py")


def _module(name: str) -> ModuleType:
    full_name = f"{_package()}.{name}"
    if full_name in sys.modules:
        return sys.modules[full_name]
    path = estimator_file(name)
    spec = spec_from_loader(full_name, _Loader(full_name, str(path)))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[full_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full_name]
        raise
    return module


@cache
def _package() -> str:
    package, base = ModuleType(_PACKAGE), ModuleType(f"{_PACKAGE}.estimator")
    package.__path__ = [str(package_folder() / "estimators")]
    base.Estimator = _Base  # type: ignore[attr-defined]  # a module made by hand
    sys.modules[package.__name__] = package
    sys.modules[base.__name__] = base
    return _PACKAGE
