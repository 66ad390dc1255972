"""An evaluation as a table, for programs that read parquet."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from uq_llm_integrations.errors import ConfigurationError
from uq_llm_integrations.evaluation.items import Evaluation, Item
from uq_llm_integrations.optional_packages import optional_module
from uq_llm_integrations.records import JsonObject, Usage


def to_parquet(evaluation: Evaluation, path: str | Path) -> None:
    """Write a row an item: question, answer, grade, `score_` of each method, and the usage.

    Raises MissingDependencyError without pyarrow, ConfigurationError where it cannot be written.

    Example:
        to_parquet(Evaluation.load("evaluation.jsonl"), "evaluation.parquet")
    """
    pyarrow = optional_module("pyarrow", "evaluation")
    parquet = optional_module("pyarrow.parquet", "evaluation")
    texts, number = pyarrow.string(), pyarrow.float64()
    schema = pyarrow.schema(
        [
            *((name, texts) for name in ("id", "question", "group", "text")),
            *((name, pyarrow.list_(texts)) for name in ("answers", "sources")),
            *((name, texts) for name in ("error", "decision", "grade_reason")),
            ("correct", pyarrow.bool_()),
            *((name, number) for name in ("quality", "confidence")),
            *((f"score_{name}", number) for name in evaluation.setup.methods),
            *((one.name, number) for one in fields(Usage)),
        ]
    )
    rows = [_row(one, evaluation.setup.methods) for one in evaluation.items]
    try:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error}") from error


def _row(item: Item, methods: tuple[str, ...]) -> JsonObject:
    question = item.question.to_dict()
    usage = {} if item.usage is None else vars(item.usage)
    return {
        **question,
        "text": item.text,
        "error": item.error,
        "decision": item.decision,
        "correct": item.grade.correct,
        "quality": item.grade.quality,
        "grade_reason": item.grade.reason,
        "confidence": item.confidence,
        **{f"score_{name}": item.scores.get(name) for name in methods},
        **usage,
    }
