"""What stdout and stderr get while a model runs: the answer, a line of progress, errors."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TextIO

from rich.console import Console
from rich.text import Text

from uq_llm_integrations.checkpoints import cache_folder
from uq_llm_integrations.errors import EngineStartError
from uq_llm_integrations.model import UncertaintyModel
from uq_llm_integrations.report.terminal import shown


def set_log_level(verbose: bool) -> None:
    """Let vLLM log as much as was wanted; it reads this when it is imported."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO" if verbose else "ERROR")


@contextmanager
def own_stdout() -> Iterator[TextIO]:
    """Yield stdout, for the answer alone: what anything else writes there goes to stderr.

    The engine's processes have the same stdout, whatever logging was configured.
    """
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # it is no file
        yield sys.stdout
        return
    sys.stdout.flush()
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    with os.fdopen(os.dup(number), "w", encoding=encoding, errors=errors) as stdout:
        os.dup2(2, number)
        try:
            yield stdout
        finally:
            sys.stdout.flush()
            stdout.flush()
            os.dup2(stdout.fileno(), number)


@contextmanager
def running(core: UncertaintyModel, verbose: bool) -> Iterator[None]:
    """Start the engine with a progress line on stderr, and end it."""
    name, started = core.backend.capabilities.model, time.perf_counter()
    with nullcontext(Console(stderr=True)) if verbose else _logged_stderr() as console:
        with console.status(Text(f"Loading {shown(name)} ...")):
            core.backend.run(core.backend.encode("?"))  # any use starts it
        name = core.backend.capabilities.model  # servers say theirs at the first contact
        console.print(Text(f"Loaded {shown(name)} in {time.perf_counter() - started:.0f} s", "dim"))
    with core:
        yield


@contextmanager
def _logged_stderr() -> Iterator[Console]:
    """Send what this process and the engine's write to stdout and stderr into a log file.

    Yields a console that still writes to the terminal.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    path = cache_folder() / "engine.log"
    terminal, stdout = os.dup(2), os.dup(1)
    console = Console(file=os.fdopen(terminal, "w"))
    with path.open("w") as log:
        os.dup2(log.fileno(), 2)
        os.dup2(log.fileno(), 1)
    try:
        yield console
    except EngineStartError:
        console.print(Text(f"The engine's log is in {path}", "red"))
        raise
    finally:
        os.dup2(terminal, 2)
        os.dup2(stdout, 1)
        os.close(stdout)
        console.file.close()
