"""What can be asked for, and serving a model: `methods`, `schema`, `serve`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from uq_llm_integrations.backends.server import launcher
from uq_llm_integrations.cli.application import app, errors_in_words
from uq_llm_integrations.cli.model_options import AsJson
from uq_llm_integrations.config import Configuration
from uq_llm_integrations.report.methods import as_data, chosen, lacking, markdown, print_table


@app.command()
def methods(
    backend: Annotated[
        str | None, typer.Option(help="Only the column of this backend, and what is missing.")
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """List all methods: what they cost, and which backend has them."""
    if as_markdown and as_json:
        raise typer.BadParameter("choose one of --markdown and --json")
    with errors_in_words():
        backends = chosen(backend)
    if as_json:
        print(json.dumps(as_data(backends), ensure_ascii=False, indent=2))
    elif as_markdown:
        print(markdown(backends))
    else:
        print_table(Console(), backends)
        for name, why in lacking(backends).items():
            Console().print(Text(f"{name} needs {why}", "dim"), soft_wrap=True)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def serve(
    context: typer.Context,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL [VLLM'S OWN FLAGS]", show_default=False)
    ] = None,
) -> None:
    """Run `vllm serve`, with exact uncertainty in every answer.

    MODEL is "smollm2", a model folder or a hub name; every further flag is one of `vllm serve`:
    `uq-llm serve --help=all` lists them, `--help=port` those about a word.
    """
    if not arguments or arguments in (["--help"], ["-h"]):
        print(context.get_help())
        return
    with errors_in_words():
        launcher.serve(arguments)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    print(json.dumps(Configuration.model_json_schema(), indent=2))
