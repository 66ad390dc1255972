"""The matrix of methods and backends."""

import pytest
from typer.testing import CliRunner

from uq_llm_integrations import METHODS
from uq_llm_integrations.cli import app
from uq_llm_integrations.report.methods import rows


def printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["methods", *arguments])
    return " ".join(result.output.split())


def test_every_method_has_a_row_and_works_somewhere():
    assert [row[0] for row in rows()] == list(METHODS)
    assert all({"yes", "fitted"} & set(row[5:]) for row in rows())


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
