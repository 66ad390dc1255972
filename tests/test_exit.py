"""However a program ends with everything open, it ends soon, silently, and leaves no process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.subprocess

PROGRAM = Path(__file__).with_name("programs") / "exiting.py"
SECONDS = 20  # in which every end must be over; 10 where nothing else keeps the processor

VARIABLES = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",  # a step of several threads takes seconds on a busy machine
    "PYTHONPATH": str(PROGRAM.parents[2]),
}


class Ended:
    """What is known of a program that has ended."""

    def __init__(self, code: int, errors: str, left: list[psutil.Process]) -> None:
        self.code, self.errors, self.left = code, errors.rpartition("now the end\n")[2], left

    @property
    def noise(self) -> str:
        """What it wrote after the traceback of its own error, if it has one."""
        return self.errors.rpartition("\nRuntimeError: the program failed\n")[2]


def end(*arguments: str, sent: int | None = None, to_group: bool = False) -> Ended:
    """Run a program that is sent a signal, or ends by itself, once it is open."""
    program = subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PROGRAM.parents[2],
        env={**os.environ, **VARIABLES},
        start_new_session=True,
    )
    with program:
        try:
            return _watched(program, sent, to_group)
        finally:
            program.kill()


def _watched(program: subprocess.Popen[str], sent: int | None, to_group: bool) -> Ended:
    assert program.stdout and program.stderr
    said = program.stdout.readline()
    assert said == "open\n", program.stderr.read()
    children = psutil.Process(program.pid).children(recursive=True)
    if sent:
        (os.killpg if to_group else os.kill)(program.pid, sent)
    _, errors = program.communicate(timeout=SECONDS)
    return Ended(program.returncode, errors, psutil.wait_procs(children, timeout=SECONDS)[1])


def check(ended: Ended, code: int) -> None:
    assert (ended.code, ended.left, ended.noise) == (code, [], ""), ended.errors


# Each way with one class or more, and each class with several ways.
WAYS: list[tuple[str, str, int]] = [
    ("bare", "end", 0),
    ("langchain", "end", 0),
    ("llama_index", "fail", 1),
    ("langchain", "leave", 3),
    ("bare", "fail_in_a_thread", 0),
    ("llama_index", "leave_in_asyncio", 3),
    ("langchain", "leave_in_asyncio", 3),
    ("bare", "fail_within_a_stream", 1),
    ("llama_index", "fail_within_a_stream", 1),
    ("langchain", "fail_in_a_call", 1),
    ("llama_index", "vanish", 5),
]


@pytest.mark.parametrize(("face", "way", "code"), WAYS)
def test_a_program_on_a_script_ends(face, way, code):
    check(end(face, "scripted", way), code)


AT_CTRL_C = (-signal.SIGINT, 1)
"""What torch does at the exit lets Python forget the interrupt, and return 1."""

SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.mark.parametrize("sent", SIGNALS, ids=lambda one: one.name)
def test_a_signal_ends_a_program(sent):
    ended = end("langchain", "scripted", "stay", sent=sent)
    assert (ended.code, ended.left) == (-sent, [])
    assert ended.errors.count("Traceback") == (sent == signal.SIGINT)


@pytest.mark.parametrize(
    ("face", "way", "code"),
    [
        ("llama_index", "fail_within_a_stream", 1),
        ("langchain", "leave_in_asyncio", 3),
    ],
)
def test_a_program_on_transformers_ends(face, way, code):
    check(end(face, "huggingface", way), code)


def test_ctrl_c_within_a_call_of_transformers_ends_a_program():
    ended = end("bare", "huggingface", "keep_asking", sent=signal.SIGINT, to_group=True)
    assert ended.code in AT_CTRL_C and not ended.left
    assert ended.errors.endswith("\nKeyboardInterrupt\n")


TESTS = """
from uq_llm_integrations import ScriptedBackend, UncertaintyModel
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM

llm = VLLMUncertaintyLLM(backend=ScriptedBackend(["Paris"]))

def test_a_model_that_nobody_closes():
    assert llm.complete("?").text == "Paris"
    stream = llm.stream_complete("?")
    assert next(stream).delta == "P"
    assert False, stream
"""


def test_pytest_ends_after_a_failed_test_with_everything_open(tmp_path):
    (tmp_path / "test_open.py").write_text(TESTS)
    without = ["-p", "no:cacheprovider", "-p", "no:asyncio"]
    command = [sys.executable, "-m", "pytest", "-q", *without, "-W", "error"]
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (1, ""), done.stdout


CELL = """
from uq_llm_integrations import ScriptedBackend
from uq_llm_integrations.langchain import ChatVLLMUncertainty
chat = ChatVLLMUncertainty(backend=ScriptedBackend(["Paris"]))
answer = await chat.ainvoke("?")
stream = chat.stream("?")
next(stream)
raise RuntimeError("the cell failed")
"""


def test_a_notebooks_kernel_is_restarted_and_shut_down():
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(stderr=subprocess.PIPE)
    ends = []
    try:
        for end_kernel in (manager.restart_kernel, manager.shutdown_kernel):
            client = manager.blocking_client()
            client.start_channels()
            client.wait_for_ready(timeout=60)
            reply = client.execute_interactive(CELL, timeout=60, output_hook=lambda message: None)
            assert reply["content"]["evalue"] == "the cell failed"
            kernel = psutil.Process(manager.provisioner.pid)
            processes = [kernel, *kernel.children(recursive=True)]
            client.stop_channels()
            end_kernel()
            ends.append(psutil.wait_procs(processes, timeout=SECONDS)[1])
    finally:
        manager.shutdown_kernel(now=True)
    assert ends == [[], []]


@pytest.mark.engine
@pytest.mark.parametrize(
    ("face", "kind", "way", "code"),
    [
        ("llama_index", "vllm", "fail", 1),
        ("langchain", "hybrid", "leave_in_asyncio", 3),
        ("bare", "vllm", "fail_at_the_start", 1),
    ],
)
def test_a_program_on_an_engine_ends(face, kind, way, code):
    check(end(face, kind, way), code)


@pytest.mark.engine
def test_ctrl_c_within_a_call_ends_a_program_and_its_engine():
    ended = end("langchain", "vllm", "keep_asking", sent=signal.SIGINT, to_group=True)
    assert ended.code in AT_CTRL_C and not ended.left
    assert "\nKeyboardInterrupt\n" in ended.errors  # the engine's processes were interrupted, too
