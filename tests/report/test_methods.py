"""The matrix of methods and backends."""

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from uq_llm_integrations import METHODS
from uq_llm_integrations.cli import app
from uq_llm_integrations.methods.comparability import VARIES_WITH
from uq_llm_integrations.report.methods import print_table, rows


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["methods", *arguments])
    return " ".join(result.output.split())


NAMES = [name for row in rows() for name in row[:2] if name]


def test_no_name_is_cut_in_a_pipe():
    result = CliRunner().invoke(app, ["methods"], env={"COLUMNS": "80"})
    lines = result.output.splitlines()
    assert [name for name in NAMES if f" {name} " not in result.output] == []
    assert len(lines) == len(rows()) + 4, "a line a method, for grep"


@pytest.mark.parametrize("width", [60, 80, 120, 400])
def test_no_name_is_cut_in_a_terminal(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    print_table(console)
    shown = console.file.getvalue().splitlines()
    assert [name for name in NAMES if not any(f" {name} " in line for line in shown)] == []


def test_the_table_is_data_too():
    data = json.loads(CliRunner().invoke(app, ["methods", "--json"]).output)
    assert [one["name"] for one in data] == list(METHODS)
    (rauq,) = [one for one in data if one["alias"] == "rauq"]
    assert rauq["backends"]["Hugging Face"] == "yes" and rauq["backends"]["vLLM, parallel"] == "no"
    assert "hidden states" in rauq["lacks"]["vLLM, parallel"] and "hybrid" not in rauq["lacks"]


def test_the_table_says_what_values_must_have_in_common_to_be_compared():
    data = json.loads(CliRunner().invoke(app, ["methods", "--json"]).output)
    varies = {one["alias"] or one["name"]: one["varies_with"] for one in data}
    assert varies["num_sem_sets"] == ["samples", "temperature"]
    assert varies["semantic_entropy"] == ["samples", "temperature", "length"]
    assert varies["maxprob"] == ["length"] and varies["entropy"] == []
    assert set(VARIES_WITH) <= set(METHODS)


def test_one_form_of_the_table_is_printed():
    assert "choose one" in printed("--json", "--markdown")


def test_every_method_has_a_row_and_works_somewhere():
    assert [row[0] for row in rows()] == list(METHODS)
    assert all({"yes", "fitted"} & set(row[6:]) for row in rows())


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("vllm", "MahalanobisDistance needs a density fitted on training texts"),
        ("vllm,parallel", "RAUQ needs hidden states or attention, which cannot be had"),
    ],
)
def test_what_is_missing_is_said_with_where_it_can_be_had(backend, message):
    assert message in printed("--backend", backend)


def test_an_unknown_backend_is_refused():
    assert "unknown backend 'tpu'" in printed("--backend", "tpu")
