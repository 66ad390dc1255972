"""vLLM's own server, on a machine whose torchvision may be another build than its torch.

vLLM's processes import the main module again, which makes their imports safe, too. A function of
vLLM's that UQ_TEST_RENAMED names has another name in them.

At SIGUSR1 the API server says how many of the plugin's objects for open requests it has.
"""

import functools
import gc
import importlib
import os
import runpy
import signal
import sys

from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds

hide_mismatched_builds(from_vllm=True)


def rename(target: str) -> None:
    """Give a function, 'module:Class.name', another name."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, f"{name}_renamed", vars(owner)[name])
    delattr(owner, name)


def say_what_is_kept(*_: object) -> None:
    """Write how many objects there are of the kinds that the plugin has one of a request."""
    gc.collect()
    kinds = {"RequestRows", "Answers", "Observed"}
    package = "uq_llm_integrations.backends.server.serving"
    kept = [
        one
        for one in gc.get_objects()
        if type(one).__name__ in kinds and type(one).__module__.startswith(package)
    ]
    sys.stderr.write(f"kept by the plugin: {len(kept)}\n")
    sys.stderr.flush()


if renamed := os.environ.get("UQ_TEST_RENAMED"):
    rename(renamed)

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, say_what_is_kept)
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
