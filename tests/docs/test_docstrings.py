"""The examples of docstrings run, with all public names at hand."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from typing import Any

import pytest

import uq_llm_integrations
from uq_llm_integrations import MissingDependencyError

PACKAGE = Path(uq_llm_integrations.__path__[0])

MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text() and "worker" not in path.parts  # that is for vLLM's processes
)


@pytest.fixture(scope="module")
def public() -> dict[str, Any]:
    """All public names that need no framework that is not installed."""
    names = {}
    for name in uq_llm_integrations.__all__:
        try:
            names[name] = getattr(uq_llm_integrations, name)
        except MissingDependencyError:
            continue
    return names


@pytest.mark.parametrize("name", MODULES)
def test_its_examples_run(name: str, public: dict[str, Any]) -> None:
    try:
        module = importlib.import_module(name)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    found = doctest.DocTestFinder(exclude_empty=True).find(module)
    report: list[str] = []
    for example in found:
        example.globs = {**public, **example.globs}
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
        runner.run(example, out=report.append)
    assert not report, "".join(report)
