"""Runs all tests that need a GPU, servers and engines side by side, in eight minutes at most.

`python -m tests.gpu.run` exits 0 where all passed, or where there is no GPU, and 1 otherwise.
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
ROOMS = ("test_served_modes.py", "test_engine_modes.py")


def main() -> int:
    """Run both files at the same time."""
    if (count := gpu_count()) == 0:
        print("skipped: there is no GPU")
        return 0
    print(f"{count} GPUs; not longer than {SECONDS:.0f} s", flush=True)
    ends = time.monotonic() + SECONDS
    runs = {name: start(name) for name in ROOMS}
    outcomes = {name: outcome(one, ends) for name, one in runs.items()}
    for name, said in outcomes.items():
        print(f"{name}: {said}")
    return int(any(said != "passed" for said in outcomes.values()))


def start(name: str) -> subprocess.Popen[bytes]:
    """Start the tests of a file, in a session of their own."""
    path = Path(__file__).with_name(name)
    command = [sys.executable, "-m", "pytest", "-v", "--no-header", str(path)]
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
    return "passed" if code == 0 else f"failed ({code})"


if __name__ == "__main__":
    sys.exit(main())
