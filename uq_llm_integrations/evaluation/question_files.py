"""Question sets from files: JSONL, JSON, CSV, parquet, and data sets of Hugging Face on disk.

LangSmith's examples are read as it exports them, one a line or as a list, and LlamaIndex's
`LabelledRagDataset` as `save_json` writes it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from uq_llm_integrations.errors import (
    ConfigurationError,
    InvalidRequestError,
    MissingDependencyError,
    reason,
)
from uq_llm_integrations.evaluation.questions import (
    Columns,
    Question,
    check_columns,
    check_ids,
    question_of,
)
from uq_llm_integrations.optional_packages import optional_module

Rows = Iterator[tuple[str, object]]
"""Where each row is, in words, and the row."""


def read_questions(
    path: str | Path, *, columns: Columns | None = None, split: str | None = None
) -> tuple[Question, ...]:
    """Return the questions of a file, or of a folder that `Dataset.save_to_disk` has written.

    The end of the name says what it is: .jsonl, .json, .csv or .parquet. `columns` names the column
    of a field (`question`, `answers`, `id`, `group`, `sources`) where that has another name; a cell
    with several answers is a JSON list. `split` names one of a data set with several. Raises
    ConfigurationError with file and line for what is no question, MissingDependencyError where
    parquet or a data set needs a package that is not there.

    Example:
        questions = read_questions("questions.csv", columns={"answers": "gold"})
    """
    path = Path(path)
    check_columns({} if columns is None else columns)
    questions: list[Question] = []
    for number, (place, row) in enumerate(_rows(path, split), 1):
        try:
            questions.append(question_of(row, number, columns))
        except (ConfigurationError, InvalidRequestError) as error:
            raise ConfigurationError(f"{path}, {place}: {error}") from error
    try:
        check_ids(questions)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return tuple(questions)


def _rows(path: Path, split: str | None) -> Rows:
    if path.is_dir():
        return _of_dataset(path, split)
    if split is not None:
        raise ConfigurationError(f"split is {split!r}, and {path} is no folder with splits")
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    if path.suffix.lower() not in _READERS:
        raise ConfigurationError(
            f"{path} is of no kind that can be read; allowed are {', '.join(_READERS)} and a "
            "folder of Dataset.save_to_disk"
        )
    return _READERS[path.suffix.lower()](path)


def _of_jsonl(path: Path) -> Rows:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            yield f"line {number}", _json(line, f"{path}, line {number}")


def _of_json(path: Path) -> Rows:
    data = _json("".join(_lines(path)), str(path))
    if isinstance(data, Mapping):
        data = data.get("examples")
    if not isinstance(data, list):
        raise ConfigurationError(f"{path} holds neither a list nor a mapping with 'examples'")
    yield from ((f"example {number}", row) for number, row in enumerate(data, 1))


def _of_csv(path: Path) -> Rows:
    reader = csv.DictReader(_lines(path), strict=True)
    try:
        for row in reader:
            place = f"line {reader.line_num}"
            if None in row:
                raise ConfigurationError(f"{path}, {place}: it has more cells than the first line")
            yield place, row
    except csv.Error as error:
        raise ConfigurationError(f"{path}, line {reader.line_num}: {error}") from error


def _of_parquet(path: Path) -> Rows:
    pyarrow = optional_module("pyarrow", "evaluation")
    parquet = optional_module("pyarrow.parquet", "evaluation")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows, 1))


def _of_dataset(path: Path, split: str | None) -> Rows:
    try:
        datasets = optional_module("datasets", "evaluation")
    except MissingDependencyError as error:
        raise MissingDependencyError("datasets", source="datasets") from error
    try:
        data = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is no data set: {reason(error)}") from error
    if isinstance(data, datasets.DatasetDict):
        if split not in data:
            raise ConfigurationError(
                f"{path} has the splits {', '.join(data)}; name one of them as split"
            )
        data = data[split]
    elif split is not None:
        raise ConfigurationError(f"split is {split!r}, and {path} has no splits")
    yield from ((f"row {number}", row) for number, row in enumerate(data, 1))


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not written in UTF-8: {error.reason}") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error


def _json(text: str, place: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise ConfigurationError(
            f"{place}: this is no JSON: {error.msg} ({where}character {error.colno})"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, too deep
        raise ConfigurationError(f"{place}: this is no JSON: {reason(error)}") from error


_READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".jsonl": _of_jsonl,
    ".json": _of_json,
    ".csv": _of_csv,
    ".parquet": _of_parquet,
}
