"""Whatever stands on a command line or in its file: an answer, or an error in words."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.fuzzing import JSON, TEXTS, changes, fuzz
from uq_llm_integrations import ConfigurationError, ScriptedBackend, UncertaintyModel
from uq_llm_integrations.backends.server import launcher
from uq_llm_integrations.cli import app
from uq_llm_integrations.config import Configuration
from uq_llm_integrations.settings import Settings

RUNNER = CliRunner()


@pytest.fixture(scope="module", autouse=True)
def _no_engine(tmp_path_factory) -> Iterator[None]:
    """Everything but the engine and the server themselves is what it is."""

    def from_config(source: object) -> UncertaintyModel:
        configuration = Configuration.read(source)
        configuration.generator.backend()
        return UncertaintyModel(ScriptedBackend(["Paris"]), configuration.settings)

    def served(arguments: list[str]) -> None:
        raise ConfigurationError(f"no server is started here for {arguments!r}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UQ_LLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(UncertaintyModel, "from_config", from_config)
        patch.setattr(launcher, "serve", served)
        yield


def check(arguments: list[str]) -> None:
    """What was said is said in words, by the exit status of a success or of a mistake."""
    done = RUNNER.invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (0, 1, 2)
    assert done.exit_code == 0 or done.output


FLAGS = [
    *("--" + name.replace("_", "-") for name in Settings.model_fields),
    *("--model", "--config", "--method", "--raw", "--json", "--compile", "--verbose"),
    *("--base-url", "--api-key", "--prompt", "--completion", "--backend", "--markdown"),
    *("--nonsense", "--", "-h", "--help"),
]
COMMANDS = st.sampled_from(["ask", "score", "methods", "schema", "serve", "nonsense"])
VALUES = st.sampled_from(
    [
        *("entropy", "entropy > 1", "abstain", "0", "-1", "0.5", "nan", "1e400", "true", "null"),
        *("[a, b]", "{type: best_of_n, n: 2}", "{type: retry, when: entropy > 1}", "!!int x", "*a"),
        *("http://localhost:1", "://", "smollm2", "./nowhere", "/dev/zero", "vllm", "\ud800", " "),
    ]
)
WORDS = st.sampled_from(FLAGS) | VALUES | TEXTS.filter(lambda text: "\0" not in text)


@fuzz(100)
@given(COMMANDS, st.lists(WORDS, max_size=6))
def test_any_command_line_ends_in_words(command, words):
    check([command, *words])


PAIRS = st.lists(st.tuples(st.sampled_from(FLAGS[: len(Settings.model_fields)]), VALUES | TEXTS))


@fuzz(100)
@given(PAIRS)
def test_any_options_of_a_question_end_in_words(pairs):
    check(["ask", "Capital of France?", *(word for pair in pairs[:3] for word in pair)])


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("configuration") / "model.yaml"


FILE = {
    "generator": {"model": "smollm2", "gpu_memory_utilization": 0.9},
    "methods": ["entropy", "perplexity"],
    "method_options": {"samples": 3, "entailment": "judge"},
    "sampling": {"temperature": 0.7, "max_tokens": 128, "logit_bias": {"3": 1.0}},
    "strategy": {"type": "retry", "when": "perplexity > 1.8", "strategy": {"type": "best_of_n"}},
    "uncertain_when": "perplexity > 1.8 or entropy > 2",
    "on_high_uncertainty": "abstain",
    "early_stop": {"statistic": "entropy", "window": 4, "above": 3.0},
    "chat_template_kwargs": {"enable_thinking": False},
    "stop": ["END"],
}


def as_yaml(value: object) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


@fuzz(100)
@given(changes(FILE).map(as_yaml) | JSON.map(as_yaml) | st.binary(max_size=60))
def test_any_file_gives_an_answer_or_an_error_in_words(path, data):
    path.write_bytes(data)
    check(["ask", "Capital of France?", "--config", str(path), "--json"])
