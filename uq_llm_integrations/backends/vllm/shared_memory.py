"""The shared memory of an engine's processes, which they leave behind where they are killed.

Python's resource tracker would remove it when this program ends; one that restarts its engine now
and then may run for months.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

_FOLDER = Path("/dev/shm")
_SEMAPHORE = "sem."
_MAPPED = re.compile(rf" {_FOLDER}/(psm_\S+)$", re.MULTILINE)
"""The memory of vLLM's queues."""


@dataclass(frozen=True)
class Remains:
    """What is to be gone with an engine."""

    processes: Set[psutil.Process] = frozenset()
    memory: Set[str] = frozenset()
    """The names of the shared memory that they have and this process has not."""

    def with_later(self, later: Remains) -> Remains:
        """Return what was seen at two times."""
        return Remains(self.processes | later.processes, self.memory | later.memory)

    def free(self, seconds: float) -> None:
        """Remove the memory once the processes have ended, which may do it themselves."""
        import psutil

        psutil.wait_procs(self.processes, seconds)
        for name in self.memory:
            with suppress(FileNotFoundError):
                _remove(name)


def remains_of(pids: Iterable[int]) -> Remains:
    """Return what living processes and all below them have; no memory where it is not Linux."""
    import psutil  # a dependency of vLLM's

    found: set[psutil.Process] = set()
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(pid)
            found |= {parent, *parent.children(recursive=True)}
    names = {name for one in found for name in _mapped_by(one.pid) | _semaphores_of(one.pid)}
    return Remains(found, names - _mapped_by("self"))


def _remove(name: str) -> None:
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
