"""What the engine's processes run first, in place of the caller's main module.

A spawned process runs the main module of its parent again. For a script without an
`if __name__ == "__main__"` guard that would start engines without end, so the engine's processes
are given this module instead. It makes their imports safe, leaves stdout to the program, and ends
them with their parent: an engine at work would otherwise finish its requests first, for nobody.
"""

import os
import signal
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


redirect_stdout()
threading.Thread(target=end_with_parent, daemon=True).start()
hide_mismatched_builds(from_vllm=True)
