"""Calibration files: what is in them, and what is refused."""

import errno
import json
import os
from pathlib import Path

import jsonschema
import pytest

from tests.calibration.graded_answers import drawn
from uq_llm_integrations import ConfigurationError
from uq_llm_integrations.calibration import (
    Calibration,
    Origin,
    calibration_schema,
    fit_calibration,
    fit_threshold,
)

ORIGIN = Origin("a model", "1.0", weights="w", settings={"temperature": "0.7"})
KEPT = Path(__file__).with_name("entropy.json")
"""A file as the first version with such files has written it."""


def fitted(count: int = 400, methods: int = 1, **options) -> Calibration:
    columns = {f"method {i}": drawn(i, count)[0] for i in range(methods)}
    return fit_calibration(columns, drawn(0, count)[1], origin=ORIGIN, **options)


@pytest.mark.parametrize(
    "made",
    [
        fitted(),
        fitted(risk=0.2),
        fitted(risk=0.2, among="all", kind="isotonic"),
        fitted(methods=3, risk=0.3, groups=["a", "b"] * 200),
    ],
)
def test_a_file_is_read_back_and_follows_the_schema(made, tmp_path):
    made.save(tmp_path / "calibration.json")
    read = Calibration.load(tmp_path / "calibration.json")
    assert read == made and read.path == str(tmp_path / "calibration.json")
    data = json.loads((tmp_path / "calibration.json").read_text())
    jsonschema.validate(data, calibration_schema())


def test_files_of_earlier_versions_are_read():
    kept = Calibration.load(KEPT)
    assert kept.confidence_of({"entropy": 0.5}) == pytest.approx(0.95164, abs=1e-5)
    assert kept.threshold(0.25).value == 2.35


def test_another_risk_than_the_promised_one_has_the_same_terms():
    made = fitted(risk=0.2, delta=0.1)
    expected = fit_threshold(made.graded.scores, made.graded.correct, risk=0.3, delta=0.1)
    assert made.threshold(0.3) == expected != made.threshold(0.2)


def test_a_stack_is_judged_by_answers_that_it_has_not_seen():
    made = fitted(methods=2, risk=0.3)
    assert len(made.graded.scores) == 200 and made.methods == ("method 0", "method 1")
    assert 0 < made.confidence_of({"method 0": -1.0, "method 1": 0.3}) < 1


def test_an_unknown_score_has_no_confidence():
    assert fitted().confidence_of({"method 0": None}) is None


def changed(**changes) -> str:
    return json.dumps({**json.loads(KEPT.read_text()), **changes})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "it holds"),
        (KEPT.read_text()[:500], "no calibration file"),
        (changed(version=2), "version"),
        (changed(confidence={"kind": "other"}), "confidence"),
        (changed(code="import os"), "code"),
        (changed(path="/etc/passwd"), "path"),
        (changed(graded={"scores": [1.0, 2.0], "correct": [True, False]}), "data_hash"),
        (changed(graded={"scores": [1.0], "correct": []}), "one entry an answer"),
        ("[" * 100_000, "no calibration file"),
    ],
)
def test_what_is_no_calibration_file_is_refused(text, why, tmp_path):
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ConfigurationError, match=why):
        Calibration.load(tmp_path / "file.json")


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "calibration.json"
    fitted(risk=0.2).save(path)
    before = path.read_text()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match=r"cannot be written: .*No space left"):
        fitted(risk=0.3).save(path)
    assert path.read_text() == before and os.listdir(tmp_path) == ["calibration.json"]


def test_one_without_scores_or_of_answers_of_one_kind_is_refused():
    with pytest.raises(ConfigurationError, match="scores is"):
        fit_calibration({}, [True], origin=ORIGIN)
    with pytest.raises(ConfigurationError, match="all 2 answers"):
        fit_calibration({"entropy": [0.1, 0.2]}, [True, True], origin=ORIGIN)


def differing(**changes) -> list[str]:
    fields = {"weights": "w", "tokenizer": None, "settings": {"temperature": "0.7"}} | changes
    here = Origin(fields.pop("model", "a model"), fields.pop("version", "1.0"), **fields)
    return list(here.differences(ORIGIN))


def test_what_differs_is_named():
    assert differing() == []
    assert differing(model="b", weights="w") == []  # the same weights in another folder
    assert differing(model="b", weights=None) == ["the model is b, and was a model"]
    assert differing(version="2.0") == ["the version is 2.0, and was 1.0"]
    assert differing(weights="v") == ["the hash of the weights is v, and was w"]
    assert differing(settings={}) == ["temperature is not set, and was 0.7"]
    assert differing(settings={"temperature": "0.7", "top_p": "0.5"}) == [
        "top_p is 0.5, and was not set"
    ]
