"""vLLM's own server, on a machine whose torchvision may be another build than its torch.

vLLM's processes import the main module again, which makes their imports safe, too. A function of
vLLM's that UQ_TEST_RENAMED names has another name in them.
"""

import functools
import importlib
import os
import runpy

from uq_llm_integrations.backends.vision_guard import hide_mismatched_builds

hide_mismatched_builds(from_vllm=True)


def rename(target: str) -> None:
    """Give a function, 'module:Class.name', another name."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, f"{name}_renamed", vars(owner)[name])
    delattr(owner, name)


if renamed := os.environ.get("UQ_TEST_RENAMED"):
    rename(renamed)

if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
