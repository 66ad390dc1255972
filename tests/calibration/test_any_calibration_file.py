"""Whatever a calibration file holds: it is a calibration that can be used, or refused by name."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzzing import JSON, NUMBERS, changed, changes, fuzz
from uq_llm_integrations import ScriptedBackend, UncertaintyError, UncertaintyModel
from uq_llm_integrations.calibration import (
    Calibration,
    Origin,
    fit_calibration,
)
from uq_llm_integrations.calibration.calibration_file import GradedAnswers

ORIGIN = Origin("scripted", "1.0", settings={"temperature": "0.7"})
CORRECT = [True] * 40 + [False, True] * 10
SCORES = [i / 30 for i in range(60)]
GROUPED = {"groups": ["a", "b"] * 30, "risk": 0.3}


def written(**options) -> dict:
    """A file as it is written."""
    names = options.pop("names", ["entropy"])
    scores = {name: SCORES for name in names}
    return fit_calibration(scores, CORRECT, origin=ORIGIN, **options).to_dict()


FILES = [
    written(),
    written(risk=0.3, kind="isotonic"),
    written(**GROUPED),
    written(names=["entropy", "maxprob"], risk=0.4),
]
FILES = [json.loads(json.dumps(one)) for one in FILES]


def signed(data: object) -> object:
    """A file with the hash of what it holds, where it holds any: as somebody would forge one."""
    try:
        graded = GradedAnswers.from_dict(data["graded"])
    except (UncertaintyError, TypeError, LookupError):
        return data
    return {**data, "data_hash": graded.digest}


def used(made: Calibration, value: object, risk: object, group: object) -> None:
    """Do with a calibration what models do with it."""
    confidence = made.confidence_of(dict.fromkeys(made.methods, value))
    assert confidence is None or 0 <= confidence <= 1
    made.threshold(risk, group)
    assert Calibration.from_dict(made.to_dict()) == made


@fuzz(300)
@given(
    st.sampled_from(FILES).flatmap(changes).map(signed),
    NUMBERS | st.none(),
    st.floats(0.1, 0.5) | NUMBERS,
    st.sampled_from(["a", None, "c", 1]),
)
@example(FILES[0], None, 3e-157, "a")  # more answers than a whole number has digits for
@example(changed(FILES[3], ("score", "methods"), []), None, 0.5, "a")
def test_any_data_is_a_calibration_or_refused(data, value, risk, group):
    try:
        made = Calibration.from_dict(data)
        used(made, value, risk, group)
    except UncertaintyError as error:
        assert str(error)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("calibration") / "file.json"


@fuzz(300)
@given(
    st.sampled_from(FILES).flatmap(changes).map(signed).map(json.dumps).map(str.encode)
    | JSON.map(json.dumps).map(str.encode)
    | st.binary(max_size=60),
    st.floats(0.1, 0.5),
)
def test_any_file_gives_a_model_its_confidence_or_is_refused(path, data, risk):
    path.write_bytes(data)
    options = {"calibration": str(path), "risk": risk, "calibration_mismatch": "warn"}
    try:
        with UncertaintyModel(ScriptedBackend(["Paris"]), **options) as model:
            assert model.methods
    except UncertaintyError as error:
        assert str(error)
