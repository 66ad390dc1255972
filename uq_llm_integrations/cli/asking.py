"""One question or one given text: `ask`, `score`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, TextIO

import typer
from rich.console import Console

from uq_llm_integrations.backends.token_texts import candidate_texts
from uq_llm_integrations.cli.application import app, errors_in_words
from uq_llm_integrations.cli.model_options import AsJson, ModelOptions, model_of
from uq_llm_integrations.cli.option_groups import with_groups
from uq_llm_integrations.cli.own_streams import own_stdout, running, set_log_level
from uq_llm_integrations.model import UncertaintyModel
from uq_llm_integrations.records import Result
from uq_llm_integrations.report.metadata import result_metadata
from uq_llm_integrations.report.terminal import json_text, render


@app.command()
@with_groups
def ask(
    question: str, chosen: ModelOptions, as_json: AsJson = False, **settings: str | None
) -> None:
    """Answer a question and colour each token by its entropy."""
    if not question.strip():
        raise typer.BadParameter("the question is empty", param_hint="QUESTION")
    _show(lambda core: core.generate(question), chosen, settings, as_json)


@app.command()
@with_groups
def score(
    prompt: Annotated[str, typer.Option(help="The text that comes before.")],
    completion: Annotated[str, typer.Option(help="The text to score.")],
    chosen: ModelOptions,
    as_json: AsJson = False,
    **settings: str | None,
) -> None:
    """Score a given text as a continuation of a prompt (teacher forcing)."""
    _show(lambda core: core.score(prompt, completion), chosen, settings, as_json)


def _show(
    result_of: Callable[[UncertaintyModel], Result],
    chosen: ModelOptions,
    settings: Mapping[str, str | None],
    as_json: bool,
) -> None:
    with errors_in_words(), own_stdout() as stdout:
        set_log_level(chosen.verbose)
        core = model_of(chosen, settings)
        with running(core, chosen.verbose):
            _print(result_of(core), core, as_json, stdout)


def _print(result: Result, core: UncertaintyModel, as_json: bool, stdout: TextIO) -> None:
    backend = core.backend
    texts = [backend.run(candidate_texts(backend, one)) for one in result.candidates]
    if as_json:
        print(json_text(result_metadata(result, texts)), file=stdout, flush=True)
    else:
        Console(file=stdout).print(render(result, texts))
