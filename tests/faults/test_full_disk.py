"""A disk that is full at any byte: the file is the old one or the whole new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.faults.campaign import INJECTIONS, Outcome, Table, seed_of
from uq_llm_integrations import ConfigurationError
from uq_llm_integrations.calibration.calibration_file import Calibration, fit_calibration
from uq_llm_integrations.calibration.origin import Origin
from uq_llm_integrations.methods.fitted.density import DensityFit
from uq_llm_integrations.testing import full_disk

WHERE = "full disk"
OF = {"model": "a model", "layer": 1}

Save = Callable[[Path, int], object]
Read = Callable[[Path], object]


def save_calibration(folder: Path, number: int) -> None:
    scores = {"entropy": [0.1 * number + one for one in range(20)]}
    right = [one < 10 for one in range(20)]
    fit_calibration(scores, right, origin=Origin("a model", "1.0")).save(folder / "file.json")


def read_calibration(folder: Path) -> object:
    return Calibration.load(folder / "file.json").to_dict()


def save_fit(folder: Path, number: int) -> None:
    embeddings = np.random.default_rng(number).normal(size=(30, 4))
    DensityFit.fit(embeddings, robust=False, **OF).save(folder)


def read_fit(folder: Path) -> object:
    return DensityFit.load(folder, **OF).mahalanobis(np.ones(4))


@pytest.mark.parametrize(
    ("kind", "save", "read"),
    [
        ("under a calibration file", save_calibration, read_calibration),
        ("under a fit", save_fit, read_fit),
    ],
)
def test_it_is_the_old_file_or_the_new_one(
    kind: str, save: Save, read: Read, tmp_path: Path, table: Table
) -> None:
    def outcome(number: int) -> Outcome:
        random, folder = seed_of(WHERE, kind, number), tmp_path / str(number)
        folder.mkdir()
        save(folder, 1)
        old, size = read(folder), sum(one.stat().st_size for one in folder.iterdir())
        try:
            with full_disk(folder, after=random.randrange(size + size // 4)):
                save(folder, 2)
        except ConfigurationError as error:
            assert "No space left" in str(error) and read(folder) == old
            return "ConfigurationError, the old file"
        assert read(folder) != old
        return "the new file"

    found = [outcome(number) for number in range(INJECTIONS)]
    assert not [one for one in tmp_path.rglob(".*")]
    table.add(WHERE, kind, found)
