"""Without a GPU all of this is skipped, and what needs two where there is one."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder; they start processes, which talk to each other."""
    here = Path(__file__).parent
    ours = [item for item in items if item.path.is_relative_to(here)]
    if not ours:
        return
    count = gpu_count()
    for item in ours:
        item.add_marker(pytest.mark.gpu)
        item.add_marker(pytest.mark.subprocess)
        needed = 1
        for mark in item.iter_markers("gpus"):
            (needed,) = mark.args
        if count < needed:
            item.add_marker(pytest.mark.skip(reason=f"needs {needed} GPUs; there are {count}"))


def gpu_count() -> int:
    """Return how many GPUs this machine has, without a context on any of them."""
    import torch

    return torch.cuda.device_count()
