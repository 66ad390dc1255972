"""What a model's scores are worth: `evaluate`, `recommend`, `calibrate`, `report`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from uq_llm_integrations import evaluation as evaluations
from uq_llm_integrations.calibration.calibration_file import Calibration
from uq_llm_integrations.calibration.confidence import Kind
from uq_llm_integrations.calibration.guarantees import Among, GroupThresholds, Threshold
from uq_llm_integrations.cli.application import app, errors_in_words
from uq_llm_integrations.cli.model_options import AsJson, ModelOptions, model_of
from uq_llm_integrations.cli.option_groups import with_groups
from uq_llm_integrations.cli.own_streams import own_stdout, running, set_log_level
from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.evaluation import Evaluation, Grader, MethodSummary
from uq_llm_integrations.evaluation.correctness import GraderName, as_grader
from uq_llm_integrations.evaluation.recommending import MetricName
from uq_llm_integrations.evaluation.summaries import COLUMNS
from uq_llm_integrations.model import UncertaintyModel
from uq_llm_integrations.report.terminal import json_text
from uq_llm_integrations.settings import ALL_AFFORDABLE

Questions = Annotated[
    Path, typer.Argument(help="Questions: .jsonl, .json, .csv, .parquet, or a data set's folder.")
]
Evaluated = Annotated[Path, typer.Argument(help="The file that `uq-llm evaluate` has written.")]


@dataclass(frozen=True)
class AskingOptions:
    """How the questions are read, asked and graded, and where the answers go."""

    output: Annotated[
        Path, typer.Option(help="The file of answers; where it is there, it is gone on with.")
    ] = Path("evaluation.jsonl")
    parquet: Annotated[Path | None, typer.Option(help="Also a table for other programs.")] = None
    column: Annotated[
        list[str] | None,
        typer.Option(help="FIELD=COLUMN, such as answers=gold; may be repeated."),
    ] = None
    split: Annotated[str | None, typer.Option(help="Of a data set with several.")] = None
    grader: Annotated[GraderName, typer.Option(help="What says whether an answer is right.")] = (
        "contains"
    )
    judge: Annotated[
        Path | None,
        typer.Option(help="The configuration file of a model that grades, in place of a grader."),
    ] = None
    template: Annotated[
        str, typer.Option(help="The prompt, with {question}, and {sources} where it is wanted.")
    ] = "{question}"
    concurrency: Annotated[int, typer.Option(help="Questions asked at the same time.")] = 8
    cost_items: Annotated[
        int, typer.Option(help="Questions for which each method is also computed alone.")
    ] = 3
    no_tokens: Annotated[
        bool, typer.Option("--no-tokens", help="Keep no tokens, which heat maps take.")
    ] = False


@app.command()
@with_groups
def evaluate(
    data: Questions, asked: AskingOptions, chosen: ModelOptions, **settings: str | None
) -> None:
    """Ask a model all questions of a set, and grade and score its answers.

    Each answer is written as it comes. The same command again goes on where it stopped.
    """
    with errors_in_words(), own_stdout() as stdout:
        found = _evaluated(data, asked, chosen, settings)
        print(_counts(found, asked.output), file=stdout)


@app.command()
@with_groups
def recommend(
    data: Annotated[Path, typer.Argument(help="Questions, or the file of their evaluation.")],
    asked: AskingOptions,
    chosen: ModelOptions,
    metric: Annotated[MetricName, typer.Option(help="What methods are compared by.")] = "auroc",
    as_json: AsJson = False,
    **settings: str | None,
) -> None:
    """Name the cheapest method within the noise of the best, and what each is worth and costs.

    Questions are first asked with all methods that need nothing fitted, unless some are named.
    """
    with errors_in_words(), own_stdout() as stdout:
        if evaluations.is_evaluation(data):
            found = Evaluation.load(data)
        else:
            found = _evaluated(data, asked, chosen, settings, {"methods": ALL_AFFORDABLE})
        choice, rows = evaluations.recommend(found, metric), evaluations.summaries(found)
        if as_json:
            told = {"recommendation": choice.to_dict(), "methods": [one.to_dict() for one in rows]}
            print(json_text(told), file=stdout)
        else:
            _print(rows, choice.words, Console(file=stdout))


@app.command()
def calibrate(
    evaluation: Evaluated,
    method: Annotated[
        list[str], typer.Option(help="What is calibrated; several, repeated, are one stack.")
    ],
    risk: Annotated[float | None, typer.Option(help="The share of wrong answers allowed.")] = None,
    among: Annotated[Among, typer.Option(help="Of which questions it is the share.")] = "answered",
    delta: Annotated[float, typer.Option(help="How probable a broken promise may be.")] = 0.05,
    kind: Annotated[Kind, typer.Option(help="How a score becomes a confidence.")] = "platt",
    by_group: Annotated[
        bool, typer.Option("--by-group", help="A threshold for each group of questions.")
    ] = False,
    output: Annotated[Path, typer.Option(help="The file.")] = Path("calibration.json"),
) -> None:
    """Make a calibration file: a confidence, and for a risk the threshold that keeps it.

    Where the risk cannot be promised it says what can be at best, writes no file and exits with 1.
    """
    with errors_in_words():
        made = evaluations.calibration_of(
            Evaluation.load(evaluation),
            method,
            risk=risk,
            among=among,
            delta=delta,
            kind=kind,
            by_group=by_group,
        )
        thresholds = _thresholds(made)
        if thresholds and all(one.value is None for _, one in thresholds):
            raise ConfigurationError("; ".join(f"{name}{one.reason}" for name, one in thresholds))
        made.save(output)
    print(f"{output}: {' and '.join(method)}, by {len(made.graded.correct)} graded answers")
    for name, one in thresholds:
        print(f"{name}{_promise(one)}")


@app.command()
def report(
    evaluation: Evaluated,
    output: Annotated[Path, typer.Option(help="The page: one file, without outside requests.")] = (
        Path("report.html")
    ),
    png: Annotated[Path | None, typer.Option(help="Its charts as a picture, too.")] = None,
) -> None:
    """Show an evaluation: curves, histograms, costs, and the worst confident mistakes."""
    with errors_in_words():
        evaluations.write_report(Evaluation.load(evaluation), output, png=png)
    for path in filter(None, (output, png)):
        print(path)


def _evaluated(
    data: Path,
    asked: AskingOptions,
    chosen: ModelOptions,
    settings: Mapping[str, str | None],
    defaults: Mapping[str, object] | None = None,
) -> Evaluation:
    """Ask all questions; what is wrong with them or the options is said before a model starts."""
    set_log_level(chosen.verbose)
    questions = evaluations.read_questions(
        data, columns=dict(map(_column, asked.column or ())), split=asked.split
    )
    core = model_of(chosen, settings, defaults)
    with _grading(asked) as grader, running(core, chosen.verbose):
        found = evaluations.evaluate(
            core,
            questions,
            asked.output,
            grader=grader,
            template=asked.template,
            concurrency=asked.concurrency,
            cost_items=asked.cost_items,
            keep_tokens=not asked.no_tokens,
            progress=True,
        )
    if asked.parquet is not None:
        evaluations.to_parquet(found, asked.parquet)
    return found


def _column(given: str) -> tuple[str, str]:
    field, equals, name = given.partition("=")
    if not equals:
        raise ConfigurationError(f"--column is {given!r}; wanted is FIELD=COLUMN")
    return field, name


@contextmanager
def _grading(asked: AskingOptions) -> Iterator[Grader]:
    """Yield what grades; a model that does is closed in the end."""
    if asked.judge is None:
        yield as_grader(asked.grader)
        return
    with UncertaintyModel.from_config(asked.judge) as judge:
        yield evaluations.LLMJudge(judge)


def _counts(found: Evaluation, path: Path) -> str:
    right, failed = sum(found.correct), len(found.failed)
    unknown = len(found.items) - len(found.graded) - failed
    wrong = len(found.graded) - right
    return f"{path}: {right} right, {wrong} wrong, {unknown} not graded, {failed} failed"


def _print(rows: Sequence[MethodSummary], words: str, console: Console) -> None:
    if not console.is_terminal:
        console.width = 200  # so that no name is cut in a file
    console.print(_table(rows))
    console.print(Text(words), soft_wrap=True)


def _table(rows: Sequence[MethodSummary]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for place, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if place < 3 else "right")
    for one in rows:
        table.add_row(*map(Text, one.cells))
    return table


def _thresholds(made: Calibration) -> list[tuple[str, Threshold]]:
    """Return the thresholds with what each is of, in words; none where no risk was named."""
    if isinstance(made.thresholds, GroupThresholds):
        return [(f"{group}: ", one) for group, one in made.thresholds.thresholds.items()]
    return [] if made.thresholds is None else [("", made.thresholds)]


def _promise(threshold: Threshold) -> str:
    if threshold.value is None:
        return str(threshold.reason)
    share = f"{threshold.coverage:.0%} of the questions"
    return f"{threshold.guarantee}: answers up to {threshold.value:.4g}, {share}"
