"""Evaluations made of numbers, as if models had been asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from uq_llm_integrations import Usage
from uq_llm_integrations.calibration import Origin
from uq_llm_integrations.evaluation import Evaluation, Grade, Item, Question, Setup
from uq_llm_integrations.evaluation.items import ItemFile
from uq_llm_integrations.report.token_values import TokenValues


def evaluation_of(
    scores: Mapping[str, Sequence[float | None]],
    correct: Sequence[bool | None],
    costs: Mapping[str, Usage] | None = None,
    groups: Sequence[str] | None = None,
    text: str = "Paris",
) -> Evaluation:
    """An evaluation of so many answers, with these scores and grades."""
    values = TokenValues(("Par", "is"), logprob=(-2.0, -0.01), entropy=(1.7, 0.05))
    items = tuple(
        Item(
            i,
            Question(f"Question {i}?", ("Paris",), f"q{i}", groups[i] if groups else None),
            text,
            Grade(right),
            {name: values[i] for name, values in scores.items()},
            costs=costs,
            tokens=values,
        )
        for i, right in enumerate(correct)
    )
    origin = Origin("scripted", "1.0")
    setup = Setup(origin, tuple(scores), "Contains()", "{question}", len(items), "0")
    return Evaluation(setup, items)


def saved(evaluation: Evaluation, folder: Path) -> Path:
    """The file of an evaluation."""
    file = ItemFile(folder / "evaluation.jsonl", evaluation.setup)
    for one in evaluation.items:
        file.add(one)
    file.close()
    return file.path
