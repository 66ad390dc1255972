"""From questions to a calibration file on the command line."""

import json
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.evaluation.graded_items import evaluation_of, saved
from uq_llm_integrations import (
    EngineLostError,
    ScriptedBackend,
    ScriptedLine,
    Settings,
    UncertaintyModel,
)
from uq_llm_integrations.calibration import Calibration
from uq_llm_integrations.cli import app
from uq_llm_integrations.cli.evaluating import AskingOptions
from uq_llm_integrations.cli.model_options import ModelOptions
from uq_llm_integrations.evaluation import Evaluation

LINES = {
    f"Question {i}?": [ScriptedLine("yes" if i % 2 else "no", 0.9 - 0.1 * i)] for i in range(6)
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"q": one, "answer": "yes"} for one in LINES]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))


def run(monkeypatch, *arguments, script=LINES):
    """Run a command on a scripted model; return what it printed, and the model."""
    from_config = UncertaintyModel.from_config
    made = []

    def scripted(source):
        if source == Path("judge.yaml"):
            return UncertaintyModel(ScriptedBackend(["INCORRECT"]))
        options = dict(source)
        options.pop("generator", None)
        made.append(UncertaintyModel(ScriptedBackend(script), Settings(**options)))
        return made[-1]

    monkeypatch.setattr(UncertaintyModel, "from_config", scripted)
    done = CliRunner().invoke(app, arguments)
    monkeypatch.setattr(UncertaintyModel, "from_config", from_config)
    return done, made


ASK = ("evaluate", "questions.jsonl", "--column", "question=q", "--method", "entropy")


def test_evaluate_writes_jsonl_and_parquet_and_counts(data, monkeypatch):
    done, _ = run(monkeypatch, *ASK, "--parquet", "table.parquet")
    assert done.exit_code == 0, done.output
    assert done.stdout == "evaluation.jsonl: 3 right, 3 wrong, 0 not graded, 0 failed\n"
    assert "100%" in done.stderr
    found = Evaluation.load("evaluation.jsonl")
    assert found.setup.methods == ("entropy",)
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table("table.parquet").num_rows == 6


def test_evaluate_again_goes_on_where_the_engine_was_lost(data, monkeypatch):
    lost = {**LINES, "Question 4?": [EngineLostError("it is gone")]}
    one_by_one = (*ASK, "--concurrency", "1")
    done, _ = run(monkeypatch, *one_by_one, script=lost)
    assert done.exit_code == 1 and "it is gone" in done.stderr
    assert len(Evaluation.load("evaluation.jsonl").items) == 4
    done, (model,) = run(monkeypatch, *one_by_one)
    assert done.exit_code == 0, done.output
    assert len(model.backend.requests) == 2
    assert len(Evaluation.load("evaluation.jsonl").items) == 6


def test_evaluate_lets_another_model_judge_and_closes_both(data, monkeypatch):
    closed = []
    monkeypatch.setattr(ScriptedBackend, "close", lambda backend: closed.append(backend))
    done, (model,) = run(monkeypatch, *ASK, "--judge", "judge.yaml")
    assert model.backend in closed and len(closed) == 2
    assert done.stdout == "evaluation.jsonl: 0 right, 6 wrong, 0 not graded, 0 failed\n"
    assert Evaluation.load("evaluation.jsonl").setup.grader == "LLMJudge(scripted)"


KILLED = """
import os, signal
from uq_llm_integrations import ScriptedBackend, UncertaintyModel
from uq_llm_integrations.cli import app

class Killing(ScriptedBackend):
    async def generate(self, request, monitor=None):
        if len(self.requests) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().generate(request, monitor)

UncertaintyModel.from_config = lambda _: UncertaintyModel(Killing(["yes"]), methods=["entropy"])
app()
"""


@pytest.mark.subprocess
def test_evaluate_goes_on_after_a_kill(data):
    program = [sys.executable, "-c", KILLED, *ASK, "--concurrency", "1"]

    def asked():
        return subprocess.run(program, capture_output=True, text=True, timeout=300, check=False)

    killed = asked()
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [one.number for one in Evaluation.load("evaluation.jsonl").items] == [0, 1, 2]
    again = asked()
    assert again.returncode == 0, "three are left, and the fourth would kill: " + again.stderr
    assert again.stdout == "evaluation.jsonl: 6 right, 0 wrong, 0 not graded, 0 failed\n"


def test_recommend_asks_with_all_methods_that_need_nothing_fitted(data, monkeypatch):
    ask = ("recommend", "questions.jsonl", "--column", "question=q", "--cost-items", "1", "--json")
    done, (model,) = run(monkeypatch, *ask)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert len(told["methods"]) > 10 and model.settings.methods == ("all affordable",)
    assert told["recommendation"]["words"].startswith("Take ")


def test_recommend_reads_what_was_evaluated(tmp_path):
    scores = {"entropy": [i / 80 for i in range(80)], "maxprob": [float(i % 7) for i in range(80)]}
    path = saved(evaluation_of(scores, [i < 40 for i in range(80)]), tmp_path)
    done = CliRunner().invoke(app, ["recommend", str(path)])
    assert done.exit_code == 0, done.output
    assert "entropy  1.000 (1.000 to 1.000)" in done.stdout
    assert "Take entropy" in done.stdout


def test_calibrate_writes_a_file_with_a_promise(tmp_path):
    path = saved(
        evaluation_of({"entropy": [i / 400 for i in range(400)]}, [i < 300 for i in range(400)]),
        tmp_path,
    )
    out = tmp_path / "calibration.json"
    ask = ["calibrate", str(path), "--method", "entropy", "--output", str(out)]
    done = CliRunner().invoke(app, [*ask, "--risk", "0.1"])
    assert done.exit_code == 0, done.output
    assert "at most 10% of the answers wrong, with 95% probability: answers up to" in done.stdout
    assert Calibration.load(out).guarantee.risk == 0.1
    out.unlink()
    done = CliRunner().invoke(app, [*ask, "--risk", "0.001"])
    assert done.exit_code == 1 and "cannot be promised" in " ".join(done.stderr.split())
    assert not out.exists()


def test_calibrate_promises_by_group(tmp_path):
    groups = ["law" if i % 2 else "art" for i in range(400)]
    scores = {"entropy": [i / 400 for i in range(400)]}
    path = saved(evaluation_of(scores, [i < 300 for i in range(400)], groups=groups), tmp_path)
    out = tmp_path / "calibration.json"
    ask = ["calibrate", str(path), "--method", "entropy", "--by-group", "--risk", "0.1"]
    done = CliRunner().invoke(app, [*ask, "--output", str(out)])
    assert "law: at most 10%" in done.stdout and "art: at most 10%" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "nowhere.jsonl"), "there is no file nowhere.jsonl"),
        (("evaluate", "questions.jsonl"), "it has no question"),
        ((*ASK, "--column", "answers"), "wanted is FIELD=COLUMN"),
        ((*ASK, "--method", "nonsense"), "unknown uncertainty method"),
        (("recommend", "nowhere.jsonl"), "there is no file"),
        (("calibrate", "questions.jsonl", "--method", "entropy"), "holds no evaluation"),
    ],
)
def test_mistakes_are_explained_before_a_model_starts(data, arguments, message):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert message in " ".join(done.output.split())


def test_no_two_options_of_a_command_have_one_name():
    names = [one.name for kind in (AskingOptions, ModelOptions) for one in fields(kind)]
    names += [*Settings.model_fields, "data", "metric", "as_json"]
    assert len(names) == len(set(names))
