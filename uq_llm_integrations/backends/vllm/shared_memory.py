"""The shared memory of an engine's processes, which they leave behind where they are killed.

Python's resource tracker would remove it when this program ends; one that restarts its engine now
and then may run for months.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

_FOLDER = Path("/dev/shm")
_SEMAPHORE = "sem."
_MAPPED = re.compile(rf" {_FOLDER}/(psm_\S+)$", re.MULTILINE)
"""The memory of vLLM's queues."""


def memory_of(pids: Iterable[int]) -> set[str]:
    """Return the names of the shared memory of processes and all below them, but not of this one.

    There are none where the system is not Linux.
    """
    import psutil  # a dependency of vLLM's

    names: set[str] = set()
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(pid).children(recursive=True)
            for one in (pid, *(child.pid for child in below)):
                names |= _mapped_by(one) | _semaphores_of(one)
    return names - _mapped_by("self")


def free(names: Iterable[str]) -> None:
    """Remove what is still there of the shared memory of processes that have ended."""
    for name in names:
        with suppress(FileNotFoundError):
            if name.startswith(_SEMAPHORE):
                (_FOLDER / name).unlink()
                resource_tracker.unregister(f"/{name.removeprefix(_SEMAPHORE)}", "semaphore")
            else:
                memory = shared_memory.SharedMemory(name)
                memory.close()
                memory.unlink()  # and tells the resource tracker so


def _semaphores_of(pid: int) -> set[str]:
    """Return the names of those of joblib, which a library of vLLM's workers uses."""
    return {one.name for one in _FOLDER.glob(f"{_SEMAPHORE}loky-{pid}-*")}


def _mapped_by(pid: int | str) -> set[str]:
    with suppress(OSError):
        return set(_MAPPED.findall(Path(f"/proc/{pid}/maps").read_text()))
    return set()
