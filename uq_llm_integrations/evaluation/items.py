"""What is known of each question once a model was asked, and the file that holds it.

The file is JSONL: what was evaluated on the first line, and an item on each further one, in the
order in which they were finished.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from io import BufferedRandom
from pathlib import Path
from typing import Self

from uq_llm_integrations.calibration.origin import Origin
from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError, described, reason
from uq_llm_integrations.evaluation.correctness import Grade
from uq_llm_integrations.evaluation.questions import Question
from uq_llm_integrations.records import JsonObject, Usage
from uq_llm_integrations.report.token_values import TokenValues

_START = b'{"evaluation": 1,'
"""How a file of this form begins."""

_NO_ANSWER = Grade(None, reason="there is no answer")


@dataclass(frozen=True)
class Item(PlainRecord):
    """One question, the model's answer, its grade and its scores; or why there is no answer."""

    number: int
    """Its place in the set of questions, from 0."""
    question: Question
    text: str | None = None
    """The model's own answer, also where it abstained; None where it failed."""
    grade: Grade = _NO_ANSWER
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """Method -> score, higher is more uncertain; None where it is unknown."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Method -> why its score is unknown."""
    confidence: float | None = None
    """By the model's calibration, where it has one."""
    decision: str | None = None
    is_uncertain: bool = False
    """By the model's own policy."""
    usage: Usage | None = None
    """What the answer and all scores together have cost."""
    costs: Mapping[str, Usage] | None = None
    """Method -> what its score alone has cost beside the answer, where that was measured."""
    tokens: TokenValues | None = None
    error: str | None = None
    is_retryable: bool = False
    """Whether the same question may succeed another time."""

    @property
    def is_graded(self) -> bool:
        """Whether there is an answer, and it is known whether that is right."""
        return self.text is not None and self.grade.correct is not None


@dataclass(frozen=True)
class Setup(PlainRecord):
    """What was evaluated: an evaluation goes on only with the same."""

    origin: Origin
    methods: tuple[str, ...]
    grader: str
    template: str
    count: int
    """How many questions there are."""
    questions: str
    """Their hash."""

    def differences(self, before: Setup) -> Iterator[str]:
        """Yield what is another thing here than it was `before`."""
        yield from self.origin.differences(before.origin)
        for name in ("methods", "grader", "template", "count", "questions"):
            own, other = getattr(self, name), getattr(before, name)
            if own != other:
                yield f"{name} is {described(own)}, and was {described(other)}"


def hash_of(questions: Sequence[Question]) -> str:
    """Return the hash of all that is asked."""
    data = [one.to_dict() for one in questions]
    return sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Evaluation:
    """The items of a file, in the order of the questions.

    Example:
        evaluation = Evaluation.load("evaluation.jsonl")
        auroc(evaluation.scores("entropy"), evaluation.correct)
    """

    setup: Setup
    items: tuple[Item, ...]

    @property
    def graded(self) -> tuple[Item, ...]:
        """The items with an answer of which it is known whether it is right."""
        return tuple(one for one in self.items if one.is_graded)

    @property
    def correct(self) -> list[bool]:
        """Whether each of the graded answers is right."""
        return [bool(one.grade.correct) for one in self.graded]

    def scores(self, method: str) -> list[float | None]:
        """Return a method's scores of the graded answers; higher is more uncertain.

        Raises ConfigurationError for a method that was not asked for.
        """
        if method not in self.setup.methods:
            raise ConfigurationError(
                f"{described(method)} was not evaluated; allowed are "
                f"{', '.join(self.setup.methods)}"
            )
        return [one.scores.get(method) for one in self.graded]

    @property
    def failed(self) -> tuple[Item, ...]:
        """The items without an answer."""
        return tuple(one for one in self.items if one.error is not None)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the evaluation of a file, without a last line that was cut.

        Raises ConfigurationError, which names the line, for what is no such file.
        """
        setup, items, _ = _read(Path(path))
        if setup is None:
            raise ConfigurationError(f"{path} holds no evaluation: it has no whole line")
        return cls(setup, _in_order(items))


def is_evaluation(path: str | Path) -> bool:
    """Return whether a file begins as one that holds an evaluation."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_START)) == _START
    except OSError:
        return False


class ItemFile:
    """A file to which items are written as they are finished; it goes on where it stopped.

    Raises ConfigurationError where the file is another evaluation's, or cannot be written; what is
    in it stays.
    """

    def __init__(self, path: str | Path, setup: Setup) -> None:
        self.path, self.setup = Path(path), setup
        before, self.items, end = _read(self.path) if self.path.exists() else (None, [], 0)
        if before is not None and (differences := list(setup.differences(before))):
            raise ConfigurationError(
                f"{path} is of another evaluation: {'; '.join(differences)}; give another file"
            )
        try:
            self._file: BufferedRandom = self.path.open("r+b" if self.path.exists() else "w+b")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error}") from error
        self._file.truncate(end)
        self._file.seek(end)
        if before is None:
            self._write({"evaluation": 1, **setup.to_dict()})

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the items that need not be asked again."""
        return frozenset(one.number for one in self.items if not one.is_retryable)

    def add(self, item: Item) -> None:
        """Write an item; it is on the disk when this returns."""
        self._write(item.to_dict())
        self.items.append(item)

    def evaluation(self) -> Evaluation:
        """Return all that is known so far."""
        return Evaluation(self.setup, _in_order(self.items))

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # what could not be written has been said
            self._file.close()

    def _write(self, data: JsonObject) -> None:
        try:
            self._file.write(json.dumps(data, allow_nan=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self.close()
            raise ConfigurationError(f"{self.path} cannot be written: {error}") from error


def _read(path: Path) -> tuple[Setup | None, list[Item], int]:
    """Return what the whole lines hold, and where they end."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not content.startswith(_START[: len(content)]):
        raise ConfigurationError(f"{path} holds no evaluation; its first line is another")
    end = content.rfind(b"\n") + 1
    first, *lines = content[:end].splitlines() or [b""]
    setup = _setup(first, path) if end else None
    return setup, [_item(line, f"{path}, line {place}") for place, line in enumerate(lines, 2)], end


def _setup(line: bytes, path: Path) -> Setup:
    try:
        data = json.loads(line)
        _check_version(data.pop("evaluation"))
        return Setup.from_dict(data)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}, line 1: {reason(error)}") from error


def _check_version(version: object) -> None:
    if version != 1:
        raise ConfigurationError(f"the form of the file is {described(version)}; known is 1")


def _item(line: bytes, place: str) -> Item:
    try:
        data = json.loads(line)
        if not isinstance(data, dict):
            raise ConfigurationError(f"it holds {described(data)}")
        return Item.from_dict(data)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{place}: this is no item: {reason(error)}") from error


def _in_order(items: Sequence[Item]) -> tuple[Item, ...]:
    """Return the last item of each question; what was asked again counts."""
    latest = {one.number: one for one in items}
    return tuple(latest[number] for number in sorted(latest))
