"""What the engine's processes run first, in place of the caller's main module.

A spawned process runs the main module of its parent again. For a script without an
`if __name__ == "__main__"` guard that would start engines without end, so the engine's processes
are given this module instead. It makes their imports safe, leaves stdout to the program, and ends
them with their parent: an engine at work would otherwise finish its requests first, for nobody. And
it lets them end soon: at its exit the interpreter looks several times through all objects for
garbage, which takes seconds where vLLM has made a million of them.
"""

import atexit
import gc
import os
import signal
import sys
import threading
import time

from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds
from uq_llm_integrations.backends.vllm.log_stream import redirect_stdout


def end_with_parent() -> None:
    """Kill this process within about a second of its parent's end."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


def end_soon() -> None:
    """Skip the search for garbage at the end, and what extensions say of the garbage."""
    gc.freeze()
    sys.stderr.flush()
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)


redirect_stdout()
threading.Thread(target=end_with_parent, daemon=True).start()
atexit.register(end_soon)
hide_mismatched_builds(from_vllm=True)
