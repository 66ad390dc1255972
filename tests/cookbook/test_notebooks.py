"""The notebooks of the cookbook run from their first cell to their last, on the real engine."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from uq_llm_integrations import VLLMEngineBackend

COOKBOOK = Path(__file__).parents[2] / "cookbook"
NOTEBOOKS = sorted(COOKBOOK.rglob("*.ipynb"))

# The engine arguments of all notebooks, so that they share one engine.
ENGINE = {"enforce_eager": True, "max_model_len": 2048}

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    """An engine that outlives each notebook's own use of it."""
    with VLLMEngineBackend("smollm2", **ENGINE) as backend:
        backend.start()
        yield


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)  # as it was before
    shell = InteractiveShell()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notebooks are the reader's, with the usual filters
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source).raise_error()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_outputs_are_kept(path):
    cells = [one for one in nbformat.read(path, as_version=4).cells if one.cell_type == "code"]
    assert all(one.execution_count for one in cells)
    assert any(one.outputs for one in cells)
