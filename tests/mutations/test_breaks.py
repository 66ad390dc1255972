"""The breaks can be made: whether tests notice them takes `python -m tests.mutations`."""

from pathlib import Path

import pytest

import uq_llm_integrations
from tests.mutations.breaks import BREAKS

PACKAGE = Path(uq_llm_integrations.__file__).parent


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: one.name)
def test_what_a_break_changes_is_there_once_and_its_tests_are_there(one):
    assert (PACKAGE / one.file).read_text().count(one.old) == 1
    assert one.new != one.old
    files = [test.split("::")[0] for test in one.tests.split()]
    assert all(Path(__file__).parents[2].joinpath(file).exists() for file in files)
