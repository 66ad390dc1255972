"""vLLM's own server, started by `uq-llm serve`."""

import os
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("vllm")

import uq_llm_integrations as uq
from uq_llm_integrations import UncertaintyModel, VLLMServerBackend
from uq_llm_integrations.backends.server import vllm_process, vllm_program
from uq_llm_integrations.backends.server.vllm_process import flags, is_given

SOURCE = Path(__file__).parents[3]
NAMES = ("dtype", "kv_cache_memory_bytes", "enable_chunked_prefill", "enforce_eager")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["--dtype", "bfloat16", "--port", "8001"], ["dtype"]),
        (["--kv-cache-memory-bytes=1G"], ["kv_cache_memory_bytes"]),
        (["--no-enable-chunked-prefill"], ["enable_chunked_prefill"]),
        (["--enable_chunked_prefill", "--enforce-eager"], ["enable_chunked_prefill", NAMES[-1]]),
        (["--no-enforce-eager"], ["enforce_eager"]),
    ],
)
def test_what_the_user_has_given_is_known(given, expected):
    parsed = vllm_program.parsed(["org/name", *given])
    assert [name for name in NAMES if is_given(parsed, name, given)] == expected


def test_arguments_become_flags_that_vllm_reads():
    arguments = {"dtype": "float32", "enable_chunked_prefill": False, "enforce_eager": True}
    parsed = vllm_program.parsed(["org/name", *flags(arguments)])
    assert arguments.items() <= vars(parsed).items()


def test_a_bundled_model_is_served_by_its_name_with_what_a_cpu_needs(monkeypatch):
    ran, waited = [], []
    monkeypatch.setattr(vllm_program, "run", ran.append)
    monkeypatch.setattr(vllm_process, "report_readiness", lambda *seen: waited.append(seen))
    monkeypatch.setattr(vllm_process, "cpu_environment", lambda *, is_eager: {})
    vllm_process.serve(["smollm2", "--port", "8001"])
    (command,) = ran
    given = vllm_program.parsed(command)
    assert given.served_model_name == ["smollm2"] and Path(command[0]).is_dir()
    assert (given.port, given.enable_chunked_prefill) == (8001, False)
    assert waited[0][1] == "smollm2"


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ([], "127.0.0.1"),
        (["--host", "0.0.0.0"], "0.0.0.0"),
        (["--host=::1"], "::1"),
        (["--config", "{config}"], "10.0.0.1"),
        (["--uds", "/tmp/uq.sock"], None),
    ],
)
def test_it_listens_on_this_machine_alone_unless_it_is_told(monkeypatch, tmp_path, given, host):
    config = tmp_path / "vllm.yaml"
    config.write_text("host: 10.0.0.1\n")
    ran = []
    monkeypatch.setattr(vllm_program, "run", ran.append)
    monkeypatch.setattr(vllm_process, "report_readiness", lambda *seen: None)
    monkeypatch.setattr(vllm_process, "cpu_environment", lambda *, is_eager: {})
    vllm_process.serve(["smollm2", *(one.format(config=config) for one in given)])
    assert vllm_program.parsed(ran[0]).host == host


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (uq.ConfigurationError("no such thing"), "Error: no such thing"),
        (OSError("it is no folder"), "Error: vLLM cannot serve 'm': it is no folder"),
        (RuntimeError("it broke"), "Error: vLLM cannot serve 'm': it broke"),
    ],
)
def test_what_goes_wrong_is_the_last_line(monkeypatch, error, named):
    def serve(arguments):
        raise error

    monkeypatch.setattr(vllm_process, "serve", serve)
    monkeypatch.setattr(sys, "argv", ["uq-llm", "m"])
    with pytest.raises(SystemExit) as raised:
        vllm_process.main()
    assert str(raised.value.code).startswith(named)


def test_an_unknown_flag_is_named(capsys):
    with pytest.raises(SystemExit) as raised:
        vllm_program.parsed(["org/name", "--no-such-flag", "3"])
    assert raised.value.code == 2 and "--no-such-flag" in capsys.readouterr().err


@pytest.fixture
def plugin_folder(tmp_path):
    """A folder on the path with the entry points, for environments without an installation."""
    folder = tmp_path / "uq_llm_tested-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: uq-llm-tested\nVersion: 0\n")
    points = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        f"[{group}]\n{name} = {one}" for group in points for name, one in points[group].items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.engine
@pytest.mark.subprocess
def test_it_serves_until_a_signal_ends_it(plugin_folder):
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    arguments = ["--port", str(port), "--enforce-eager", "--max-model-len", "512"]
    program = "from uq_llm_integrations.cli import app; app()"
    server = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "smollm2", *arguments],
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{plugin_folder}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            assert server.stderr
            seen = []
            for line in server.stderr:
                seen.append(line)
                if line.startswith("uq-llm: smollm2 is served at"):
                    break
            assert server.poll() is None, "".join(seen)
            with VLLMServerBackend(f"http://127.0.0.1:{port}", model="smollm2") as client:
                model = UncertaintyModel(client, chat_template=True, temperature=0, max_tokens=16)
                result = model.generate("What is the capital of France?")
            assert "Paris" in result.text and result.candidate.trace.is_exact
            server.send_signal(signal.SIGTERM)
            server.stderr.read()
            assert server.wait(60) == 0
        finally:
            server.kill()
