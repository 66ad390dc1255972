"""The command line as a user runs it, in a process of its own with an engine of its own."""

import json
import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tests.conftest import ENGINE_ARGUMENTS
from uq_llm_integrations import Configuration, ConfigurationError, UncertaintyModel
from uq_llm_integrations.cli import app


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    program = "from uq_llm_integrations.cli import app; app()"
    command = [sys.executable, "-c", program, *arguments]
    inherited = {name: one for name, one in os.environ.items() if not name.startswith("VLLM_LOG")}
    environment = inherited | variables
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)


@pytest.mark.engine
def test_ask_answers_with_scores_as_json_alone_whatever_is_logged_where(tmp_path):
    config = tmp_path / "model.yaml"  # its engine argument has vLLM imported before the start
    config.write_text(
        "generator: {model: smollm2, enforce_eager: true, max_model_len: 512, "
        "num_gpu_blocks_override: 24}\n"
        "chat_template: true\n"
        "temperature: 0\n"
    )
    question = "What is the capital of France?"
    command = ["ask", question, "--config", str(config), "--json", "--max-tokens", "16"]
    done = run(*command, "--verbose", VLLM_LOGGING_STREAM="ext://sys.stdout")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    (candidate,) = answer["candidates"]
    assert "Paris" in candidate["text"]
    assert candidate["uncertainty"]["exact"]
    assert len(candidate["tokens"]["entropy"]) == answer["usage"]["generated_tokens"]
    assert "Loaded smollm2" in done.stderr
    assert "INFO" in done.stderr, "vLLM has logged"


@pytest.mark.engine
def test_score_scores_a_given_text(backend, tmp_path):
    config = tmp_path / "model.yaml"
    config.write_text(json.dumps({"generator": {"model": "smollm2"} | ENGINE_ARGUMENTS}))
    command = ["score", "--config", str(config), "--completion", "Paris."]
    done = CliRunner().invoke(app, [*command, "--prompt", "What is the capital of France?"])
    assert done.exit_code == 0, done.output
    assert "Paris." in done.stdout
    assert re.search(r"entropy +\d", done.stdout), "given text has exact scores, too"
    assert "2 scored" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", " "], "question is empty"),
        (["ask", "?", "--method", "nonsense"], "unknown uncertainty method"),
        (["ask", "?", "--model", "./nowhere"], "no model folder"),
        (["ask", "?", "--temperature", "nan"], "temperature is nan"),
        (["ask", "?", "--n", "0"], "n is 0"),
    ],
)
def test_mistakes_are_explained_before_the_engine_starts(arguments, message):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0
    assert message in result.output.replace("\n", " ")


@pytest.fixture
def described(monkeypatch):
    """The generator that a command describes; nothing is asked."""
    seen = []

    def read(source):
        seen.append(Configuration.read(source).generator)
        raise ConfigurationError("seen")

    monkeypatch.setattr(UncertaintyModel, "from_config", read)
    monkeypatch.delenv("UQ_LLM_API_KEY", raising=False)

    def describe(*arguments, **variables):
        done = CliRunner().invoke(app, ["ask", "?", *arguments], env=variables)
        assert "seen" in done.output, done.output
        return seen.pop()

    return describe


URL = "http://localhost:8000/v1"


def test_a_server_is_asked_instead_of_a_model_here(described):
    generator = described("--base-url", URL, "--base-url", "http://two", "--api-key", "one")
    assert (generator.type, generator.base_url) == ("vllm_server", (URL, "http://two"))
    assert generator.model is None and generator.api_key.get_secret_value() == "one"
    assert described("--base-url", URL, "--model", "org/name").model == "org/name"


def test_the_key_may_be_in_the_environment(described, tmp_path):
    assert described("--base-url", URL, UQ_LLM_API_KEY="two").api_key.get_secret_value() == "two"
    given = described("--base-url", URL, "--api-key", "one", UQ_LLM_API_KEY="two")
    assert given.api_key.get_secret_value() == "one"
    config = tmp_path / "model.yaml"
    config.write_text(f"generator: {{type: vllm_server, base_url: '{URL}'}}")
    generator = described("--config", str(config), UQ_LLM_API_KEY="two")
    assert generator.api_key.get_secret_value() == "two"
    assert "api_key" not in described("--model", "org/name", UQ_LLM_API_KEY="two").arguments()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base-url", URL, "--compile"], "--compile is of an engine"),
        (["--base-url", "localhost"], "base_url is 'localhost'"),
        (["--api-key", "secret"], "api_key"),
    ],
)
def test_what_no_server_can_take_is_refused(arguments, message):
    done = CliRunner().invoke(app, ["ask", "?", *arguments])
    assert done.exit_code == 1 and message in done.output and "secret" not in done.output


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_serve_says_what_it_takes(arguments):
    done = CliRunner().invoke(app, ["serve", *arguments])
    assert done.exit_code == 0 and "vllm serve" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--port", "8001"], "the model is missing"), (["./no/folder"], "no model folder")],
)
def test_serve_names_what_is_wrong_with_the_model(arguments, message):
    done = CliRunner().invoke(app, ["serve", *arguments])
    assert done.exit_code == 1 and message in done.output


def test_an_error_has_no_command_to_the_terminal(monkeypatch):
    def read(source):
        raise ConfigurationError("the server says \x1b[2J \x9b2J [bold]")

    monkeypatch.setattr(UncertaintyModel, "from_config", read)
    done = CliRunner().invoke(app, ["ask", "?"])
    assert "the server says ␛[2J �2J [bold]" in done.output
