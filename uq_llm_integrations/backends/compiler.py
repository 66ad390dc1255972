"""Whether torch can compile on this machine."""

from __future__ import annotations

import os
import shutil


def has_compiler() -> bool:
    """Return whether torch can compile for the CPU."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def compiles() -> bool:
    """Return whether torch does so here: `torch.compile` may be told to leave functions alone."""
    return has_compiler() and os.environ.get("TORCHDYNAMO_DISABLE") != "1"
