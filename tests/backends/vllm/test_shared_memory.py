"""What killed processes leave in shared memory."""

import subprocess
import sys
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

from uq_llm_integrations.backends.vllm.shared_memory import Remains, remains_of

CHILD = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(60)
"""
GRANDCHILD = """
import os, pathlib, time
from multiprocessing import resource_tracker, shared_memory
pathlib.Path(f"/dev/shm/sem.loky-{os.getpid()}-x").touch()
memory = shared_memory.SharedMemory(create=True, size=8)
resource_tracker.unregister(memory._name, "shared_memory")  # as if it were killed, too
print(memory.name, flush=True)
time.sleep(60)
"""


def test_the_memory_of_a_killed_process_and_of_those_below_it_is_freed():
    import psutil

    parent = subprocess.Popen(
        [sys.executable, "-c", CHILD, GRANDCHILD], stdout=subprocess.PIPE, text=True
    )
    with parent:
        name = parent.stdout.readline().strip()
        own = shared_memory.SharedMemory(create=True, size=8)
        found = remains_of([parent.pid])
        (child,) = psutil.Process(parent.pid).children()
        child.kill()
        parent.kill()
    semaphore = f"loky-{child.pid}-x"
    resource_tracker.register(f"/{semaphore}", "semaphore")  # as an engine's processes do
    assert found.memory == {name, f"sem.{semaphore}"}
    assert {one.pid for one in found.processes} >= {parent.pid, child.pid}
    assert all(Path("/dev/shm", one).exists() for one in found.memory)
    found.free(seconds=10)
    assert not any(Path("/dev/shm", one).exists() for one in found.memory)
    own.close()
    own.unlink()


def test_what_has_gone_by_itself_is_no_error():
    Remains(memory={"psm_there_is_none", "sem.loky-there-is-none"}).free(seconds=1)
    assert remains_of([2**22 + 1]) == Remains()
