"""The program `uq-llm`, to which each file of commands adds its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from uq_llm_integrations.errors import UncertaintyError
from uq_llm_integrations.report.terminal import shown

app = typer.Typer(
    help="Ask a question or score a text, and see how sure the model is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Say what is wrong in one line on stderr, and exit with 1."""
    try:
        yield
    except UncertaintyError as error:
        said = shown(f"Error: {error}")  # a server, or a model, may have had its part in it
        Console(stderr=True).print(said, style="red", highlight=False, markup=False)
        sys.exit(1)
