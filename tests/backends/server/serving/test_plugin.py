"""What vLLM finds installed, and when it does something."""

import os
import subprocess
import sys

import pytest
import vllm

from tests.vllm_server import end, free_port, start
from uq_llm_integrations import EngineStartError
from uq_llm_integrations.backends.reaches import Reach
from uq_llm_integrations.backends.server.serving import installation
from uq_llm_integrations.backends.server.serving.marks import without_plugin
from uq_llm_integrations.backends.vllm import launch

OFF = """
import sys
from uq_llm_integrations.backends.server.serving.plugin import ServingPlugin, register
register()
heavy = {"vllm", "torch", "numpy", "fastapi", "transformers"} & sys.modules.keys()
print(sorted(heavy))
"""


@pytest.mark.subprocess
@pytest.mark.parametrize("plugins", [None, "", "other", "uq_llm_other"])
def test_nothing_happens_unless_the_plugin_is_named(plugins):
    variables = {name: one for name, one in os.environ.items() if name != "VLLM_PLUGINS"}
    if plugins is not None:
        variables["VLLM_PLUGINS"] = plugins
    command = [sys.executable, "-c", OFF]
    ran = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("one", installation.all_hooks(), ids=lambda one: one.name)
def test_what_a_hook_needs_is_there(one):
    one.verify()


def test_a_hook_that_moved_is_named_with_the_version(monkeypatch):
    moved = Reach("v1_samples", ("vllm.v1.outputs:SamplerOutput.no_such",), "vllm", ("0.32.0",))
    monkeypatch.setattr(installation, "_reaches", [moved])
    with pytest.raises(EngineStartError, match=r"v1_samples needs it.*no_such"):
        installation.install(installation.Place.ENGINE)


def test_every_hook_names_itself_where_its_function_is_gone(monkeypatch):
    """Also where vLLM's own code still calls the function by its old name."""
    installation.all_hooks()
    for target, function in [one for hooks in installation._hooks.values() for one in hooks]:
        owner, name = installation._owner(target, function)
        with monkeypatch.context() as patch:
            patch.delattr(owner, name)
            if hasattr(owner, name):
                continue  # a base class has it, too
            with pytest.raises(EngineStartError, match=rf"hook {function.__name__} needs"):
                installation.install(installation.Place.ENGINE)


@pytest.mark.subprocess
def test_a_server_with_a_renamed_hook_does_not_start(tmp_path):
    log = tmp_path / "log"
    renamed = {"UQ_TEST_RENAMED": "vllm.v1.sample.sampler:Sampler.gather_logprobs"}
    process = start(tmp_path, log, free_port(), "uq_llm", environment=renamed)
    try:
        assert process.wait(300) != 0
    finally:
        end(process)
    text = log.read_text()
    assert "v1_log_probabilities" in text and vllm.__version__ in text
    assert "Application startup complete" not in text


@pytest.mark.parametrize(
    ("plugins", "left"),
    [("uq_llm", ""), ("other,uq_llm", "other"), ("uq_llm,a,b", "a,b")],
)
def test_an_embedded_engine_is_started_without_the_plugin(monkeypatch, plugins, left):
    """It has a probe of its own; the variable may be meant for servers that are started here."""
    seen = []
    monkeypatch.setenv("VLLM_PLUGINS", plugins)
    monkeypatch.setattr(
        launch, "_started_without_plugin", lambda *_: seen.append(os.environ["VLLM_PLUGINS"])
    )
    launch._started({}, launch.SpawnedProcesses())
    assert seen == [left] and os.environ["VLLM_PLUGINS"] == plugins


def test_other_plugins_are_left_as_they_are():
    assert without_plugin({}) == without_plugin({"VLLM_PLUGINS": "other"}) == {}
