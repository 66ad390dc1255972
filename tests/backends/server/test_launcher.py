"""`uq-llm serve` before vLLM is loaded: what it refuses, and what it becomes."""

import os
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from uq_llm_integrations import (
    ConfigurationError,
    EngineStartError,
    MissingDependencyError,
    ModelNotFoundError,
)
from uq_llm_integrations.backends.server import launcher

OURS = EntryPoint("uq_llm", "package:name", "vllm.general_plugins")
THEIRS = [
    EntryPoint("resolver", "package:name", "vllm.general_plugins"),
    EntryPoint("accelerator", "package:name", "vllm.platform_plugins"),
    EntryPoint("script", "package:name", "console_scripts"),
]


@pytest.fixture
def installed(monkeypatch):
    """Let some entry points and modules be installed, and no program be started."""
    started = []

    def install(*points, vllm=True):
        found = EntryPoints(points)
        monkeypatch.setattr(launcher, "entry_points", lambda **by: found.select(**by))
        monkeypatch.setattr(launcher, "find_spec", lambda name: vllm)
        monkeypatch.setattr(os, "execve", lambda *given: started.append(given))
        return started

    return install


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "accelerator,resolver,uq_llm"),
        ("", "uq_llm"),
        ("own", "own,uq_llm"),
        ("own, uq_llm", "own,uq_llm"),
    ],
)
def test_the_plugin_is_added_to_those_that_are_loaded_anyway(installed, monkeypatch, before, after):
    started = installed(*THEIRS, OURS)
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    if before is not None:
        monkeypatch.setenv("VLLM_PLUGINS", before)
    launcher.serve(["org/name", "--port", "8001"])
    ((program, command, environment),) = started
    assert (program, command[0]) == (sys.executable, sys.executable)
    assert environment == {**os.environ, "VLLM_PLUGINS": after}


def test_flags_of_vllm_are_passed_on_unchanged(installed):
    flags = ["-tp", "2", "--hf-overrides.a.b", "3", "--api-key=k", "-O3", "--compilation-config={}"]
    started = installed(OURS)
    launcher.serve(["org/name", *flags])
    assert started[0][1][-len(flags) - 1 :] == ["org/name", *flags]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], ConfigurationError),
        (["--port", "8001"], ConfigurationError),
        (["./no/such/folder"], ModelNotFoundError),
    ],
)
def test_no_model_is_said_at_once(installed, arguments, error):
    started = installed(OURS)
    with pytest.raises(error, match="model"):
        launcher.serve(arguments)
    assert started == []


@pytest.mark.parametrize("arguments", [["--config", "a.yaml"], ["--help=port"]])
def test_a_file_may_name_the_model(installed, arguments):
    started = installed(OURS)
    launcher.serve(arguments)
    assert started[0][1][-len(arguments) :] == arguments


def test_without_vllm_it_says_what_to_install(installed):
    installed(OURS, vllm=None)
    with pytest.raises(MissingDependencyError, match=r"\[vllm\]"):
        launcher.serve(["org/name"])


def test_the_front_end_without_plugins_is_refused(installed, monkeypatch):
    started = installed(OURS)
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(ConfigurationError, match="VLLM_USE_RUST_FRONTEND is set"):
        launcher.serve(["org/name"])
    assert started == []


def test_a_server_that_would_lack_the_plugin_is_not_started(installed):
    started = installed(*THEIRS)
    with pytest.raises(EngineStartError, match=r"plugin 'uq_llm'.*has to be installed"):
        launcher.serve(["org/name"])
    assert started == []
