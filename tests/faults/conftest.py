"""The table of the whole run, and what nothing may leave behind."""

import gc
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.faults.campaign import Table


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """What has come of all injections, written into the file `UQ_LLM_FAULTS_TABLE` in the end."""
    table = Table()
    yield table
    if path := os.environ.get("UQ_LLM_FAULTS_TABLE"):
        table.write(Path(path))


class Held:
    """What this process holds: threads, open files, shared memory, processes below it."""

    def __init__(self) -> None:
        process = psutil.Process()
        self.threads = {*threading.enumerate()}
        self.files = _open_files()
        self.children = {*filter(_is_no_tracker, process.children(recursive=True))}
        self.memory = {*os.listdir("/dev/shm")}

    def more_than(self, before: "Held") -> list[str]:
        """Return what has come since then."""
        memory = self.memory - before.memory
        files = len(self.files) - len(before.files)
        among = [what for number, what in self.files.items() if before.files.get(number) != what]
        memory -= _of_other_programs() if memory else set()
        return [
            *(f"thread {one.name}" for one in self.threads - before.threads),
            *([f"{files} open files, among {among}"] if files > 0 else []),
            *(f"process {one.pid}" for one in self.children - before.children),
            *(f"shared memory {one}" for one in memory),
        ]


def _open_files() -> dict[str, str]:
    """Return what each open file of this process is, by its number."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def _of_other_programs() -> set[str]:
    """Return the names of the shared memory that is in use in other sessions of this machine."""
    inodes: set[str] = set()
    for pid in psutil.pids():
        with suppress(OSError):
            if os.getsid(pid) != os.getsid(0):
                inodes |= {*re.findall(r" (\d+) +/dev/shm/", Path(f"/proc/{pid}/maps").read_text())}
    return {one.name for one in os.scandir("/dev/shm") if str(one.inode()) in inodes}


def _is_no_tracker(process: psutil.Process) -> bool:
    """Whether it is not Python's tracker of shared memory, which stays by design."""
    try:
        return "resource_tracker" not in " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return True
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(autouse=True)
def nothing_kept_by_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Drop the records of a test, whose tracebacks would keep an engine that has died."""
    yield
    caplog.get_records("call").clear()


@pytest.fixture(scope="module")
def nothing_left() -> Iterator[None]:
    """Fail where the tests of a file leave something; what is just ending has a minute for it."""
    gc.collect()
    before = Held()
    yield
    deadline = time.monotonic() + 60
    while (left := Held().more_than(before)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not left
