"""What can happen around a backend: a disk that is full, a clock that jumps."""

from __future__ import annotations

import asyncio
import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch


@contextmanager
def full_disk(folder: str | Path, after: int = 0) -> Iterator[None]:
    """Let every file of a folder that this process opens for writing fail after so many bytes.

    Texts count a byte a character. Files that are opened by other libraries' own code, such as
    SQLite's, are not concerned.

    Example:
        >>> from uq_llm_integrations.testing import full_disk
        >>> with full_disk("/tmp"):
        ...     Path("/tmp/cache.json").write_text("{}")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device
    """
    place, left, opened = Path(folder).resolve(), after, io.open

    def write(real: Callable[[Any], int], data: Any) -> int:
        nonlocal left
        if len(data) > left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= len(data)
        return real(data)

    def open_here(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        found = opened(file, mode, *arguments, **options)
        is_path = isinstance(file, str | bytes | os.PathLike)
        if is_path and set(mode) & set("wax+") and _is_within(os.fsdecode(file), place):
            return _FullFile(found, write)
        return found

    with patch.object(io, "open", open_here), patch.object(builtins, "open", open_here):
        yield


class _FullFile:
    """A file that is written to by way of a function."""

    def __init__(self, file: Any, write: Callable[[Callable[[Any], int], Any], int]) -> None:
        self._file, self._write = file, write

    def write(self, data: Any) -> int:
        return self._write(self._file.write, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _FullFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _is_within(path: str, folder: Path) -> bool:
    return Path(path).resolve().is_relative_to(folder)


@contextmanager
def jumping_clock(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[float], None]]:
    """Yield what sets the clock of an event loop forward by so many seconds, or back.

    Example:
        with jumping_clock(backend.loop.loop) as jump:
            jump(3600.0)
    """
    ahead, time = 0.0, loop.time

    def jump(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds
        loop.call_soon_threadsafe(lambda: None)  # it may sleep by the old time

    with patch.object(loop, "time", lambda: time() + ahead):
        yield jump
