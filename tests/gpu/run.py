"""Runs all tests that need a GPU, each mode in a process of its own, in eight minutes at most.

All start at the same time, since most of a mode's time is vLLM's start. `python -m tests.gpu.run`
exits 0 where all passed, or where there is no GPU, and 1 otherwise.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.gpu.conftest import gpu_count

SECONDS = 470.0
NO_TESTS = 5
"""How pytest ends where nothing was chosen."""

ROOMS = ("test_served_modes.py", "test_engine_modes.py")
KERNEL = "test_token_statistics.py"
"""What has no modes."""
MODES = {
    "V1-runner": 1,
    "V2-runner": 1,
    "speculative": 1,
    "FP8": 1,
    "tensor-parallel": 2,
    "pipeline-parallel": 2,
    "data-parallel": 2,
}
"""Mode -> how many GPUs it needs."""


def main() -> int:
    """Run each mode of both files at the same time."""
    if (count := gpu_count()) == 0:
        print("skipped: there is no GPU")
        return 0
    print(f"{count} GPUs; not longer than {SECONDS:.0f} s", flush=True)
    ends = time.monotonic() + SECONDS
    modes = [mode for mode, needed in MODES.items() if needed <= count]
    chosen = [(name, mode) for name in ROOMS for mode in modes]
    runs = {one: start(*one) for one in [*chosen, (KERNEL, "")]}
    outcomes = {key: outcome(run, ends) for key, run in runs.items()}
    for (name, mode), said in outcomes.items():
        print(f"{name} {mode}: {said}")
    lacking = [mode for mode in MODES if mode not in modes]
    print("skipped for lack of GPUs:", ", ".join(lacking) or "none")
    return int(any(said.startswith(("failed", "not done")) for said in outcomes.values()))


def start(name: str, mode: str) -> subprocess.Popen[bytes]:
    """Start a mode's tests of a file, in a session of their own."""
    path = Path(__file__).with_name(name)
    command = [sys.executable, "-m", "pytest", "-v", "--no-header", str(path), "-k", mode]
    return subprocess.Popen(command, start_new_session=True)


def outcome(run: subprocess.Popen[bytes], ends: float) -> str:
    """Return how a run ended, and end it where its time is over."""
    try:
        code = run.wait(max(ends - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGINT)  # the fixtures end their servers
        try:
            run.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
        return "not done in time"
    return {0: "passed", NO_TESTS: "no such mode"}.get(code, f"failed ({code})")


if __name__ == "__main__":
    sys.exit(main())
