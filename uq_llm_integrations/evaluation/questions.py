"""A question with its right answers, and how it is read from a row of anybody's data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uq_llm_integrations.backends.unicode_text import checked_text
from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError, described, suggestion

NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "query", "input", "prompt"),
    "answers": ("answers", "answer", "reference_answer", "output", "target"),
    "id": ("id",),
    "group": ("group",),
    "sources": ("sources", "source", "reference_contexts"),
}
"""Field -> the names of columns that it is found by, the first that is there."""

Columns = Mapping[str, str]
"""Field -> the name of its column, where that is none of `NAMES`."""


@dataclass(frozen=True)
class Question(PlainRecord):
    """A question of an evaluation.

    Example:
        >>> Question("Capital of France?", answers=("Paris",), group="geography").answers
        ('Paris',)
    """

    question: str
    answers: tuple[str, ...] = ()
    """What is right, each by itself: aliases, or patterns, or numbers, as the grader takes them."""
    id: str = ""
    """A name that no other question of the set has; the number of the row unless given."""
    group: str | None = None
    sources: tuple[str, ...] = ()
    """The texts that the answer is found in; for the reader of a report and for judges."""


def question_of(row: object, number: int, columns: Columns | None = None) -> Question:
    """Return the question of a row; `number` counts from 1 and is its id where it has none.

    A row is a mapping by column, LangSmith's example (`inputs`, `outputs`, `metadata`) or
    LlamaIndex's (`query`, `reference_answer`, `reference_contexts`). Raises ConfigurationError for
    what is no question.
    """
    if not isinstance(row, Mapping):
        raise ConfigurationError(f"it is {described(row)}; wanted is a mapping of columns")
    flat = _of_langsmith(row) if isinstance(row.get("inputs"), Mapping) else row
    found = {field: _value(flat, field, columns or {}) for field in NAMES}
    text = found["question"]
    if not isinstance(text, str) or not text.strip():
        raise ConfigurationError(_no_question(text, flat))
    return Question(
        checked_text(text, "the question"),
        _texts(found["answers"], "answers"),
        _text(found["id"], "id") or str(number),
        _text(found["group"], "group"),
        _texts(found["sources"], "sources"),
    )


def check_columns(columns: object) -> None:
    """Raise ConfigurationError for what does not name columns of fields."""
    if not isinstance(columns, Mapping):
        raise ConfigurationError(
            f"columns is {described(columns)}; wanted is a mapping of fields to column names"
        )
    for field, name in columns.items():
        if field not in NAMES:
            raise ConfigurationError(f"no field is {field!r}{suggestion(str(field), NAMES)}")
        if not isinstance(name, str):
            raise ConfigurationError(f"the column of {field} is {described(name)}, not a name")


def check_ids(questions: Iterable[Question]) -> None:
    """Raise ConfigurationError where there is no question, or two have the same id."""
    seen: set[str] = set()
    for one in questions:
        if one.id in seen:
            raise ConfigurationError(f"two questions have the id {described(one.id)}")
        seen.add(one.id)
    if not seen:
        raise ConfigurationError("there are no questions")


def _value(row: Mapping[str, Any], field: str, columns: Columns) -> object:
    if field in columns:
        if columns[field] not in row:
            raise ConfigurationError(
                f"there is no column {columns[field]!r}{suggestion(columns[field], map(str, row))}"
            )
        return row[columns[field]]
    return next((row[name] for name in NAMES[field] if row.get(name) is not None), None)


def _no_question(text: object, row: Mapping[str, Any]) -> str:
    if text is None:
        names = ", ".join(map(repr, row)) or "none"
        return f"it has no question: wanted is a column of {NAMES['question']}, there are {names}"
    return f"the question is {described(text)}; wanted is a text"


def _of_langsmith(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return LangSmith's example as one mapping; a lone value is the question, or the answer."""
    inputs, outputs = dict(row["inputs"]), dict(row.get("outputs") or {})
    metadata = row.get("metadata") or {}
    if len(inputs) == 1:
        inputs = {"question": next(iter(inputs.values()))}
    if len(outputs) == 1:
        outputs = {"answers": next(iter(outputs.values()))}
    extra = {name: metadata[name] for name in ("group", "sources") if name in metadata}
    return {**extra, **inputs, **outputs, "id": row.get("id")}


def _texts(value: object, name: str) -> tuple[str, ...]:
    """Return one or several texts; a text that is a JSON list has several."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:  # a text that begins with a bracket
            return (str(value),)
    listed = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    texts = (_text(one, name) for one in listed)
    return tuple(one for one in texts if one is not None)


def _text(value: object, name: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return checked_text(value, name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ConfigurationError(f"{name} is {described(value)}; allowed are texts and numbers")
