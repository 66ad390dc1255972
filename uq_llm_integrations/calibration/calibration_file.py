"""A calibration: all that gives a model's answers a confidence and keeps a promise, as one file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import TypeAdapter

from uq_llm_integrations.calibration.confidence import AnyScaling, Kind, fit_confidence
from uq_llm_integrations.calibration.graded import (
    Correct,
    Scores,
    as_correct,
    as_labels,
    as_scores,
)
from uq_llm_integrations.calibration.guarantees import (
    Among,
    GroupThresholds,
    Guarantee,
    Threshold,
)
from uq_llm_integrations.calibration.origin import Origin
from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.calibration.stacking import Stack, fit_stack
from uq_llm_integrations.calibration.thresholds import fit_group_thresholds, fit_threshold
from uq_llm_integrations.errors import ConfigurationError, described, reason
from uq_llm_integrations.plain_data import read_text, replace_files
from uq_llm_integrations.records import JsonObject, Score


@dataclass(frozen=True)
class GradedAnswers(PlainRecord):
    """The scores of N answers and whether each was right: all that thresholds rest on, no texts."""

    scores: tuple[float | None, ...]
    """[N] of the calibrated score; higher is more uncertain, None where it is unknown."""
    correct: tuple[bool, ...]
    """[N]"""
    groups: tuple[str, ...] | None = None
    """[N] the group of each question, None where there are no groups."""

    def __post_init__(self) -> None:
        counts = {len(self.scores), len(self.correct), len(self.groups or self.scores)}
        if len(counts) > 1:
            raise ConfigurationError("scores, correct and groups must have one entry an answer")

    @property
    def digest(self) -> str:
        """The hash of all of it."""
        return sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Calibration(PlainRecord):
    """What a model's scores are worth: a confidence for each, and thresholds for a risk.

    Example:
        >>> scores = {"entropy": [i / 100 for i in range(200)]}
        >>> made = fit_calibration(scores, [i < 120 for i in range(200)], origin=Origin("m", "1"))
        >>> made.confidence_of({"entropy": 0.1}) > 0.9, round(made.threshold(0.1).value, 2)
        (True, 1.25)
    """

    origin: Origin
    score: str | Stack
    """What is calibrated: a method's score, or a stack of several methods' scores."""
    confidence: AnyScaling
    graded: GradedAnswers
    data_hash: str
    """The hash of `graded`."""
    guarantee: Guarantee | None = None
    """What was promised when it was made; another risk has the same terms."""
    thresholds: Threshold | GroupThresholds | None = None
    """What keeps the guarantee."""
    version: Literal[1] = 1
    """Of the file's form; another one is refused."""

    path: ClassVar[str | None] = None
    """The file that it was read from, None for one that was made here."""

    def __post_init__(self) -> None:
        if self.data_hash != self.graded.digest:
            raise ConfigurationError(
                "the graded answers are not those that the file was made with: their hash is "
                f"{self.graded.digest}, and data_hash is {described(self.data_hash)}"
            )

    def identity_parts(self) -> object:
        """Return what answers depend on: all of it, as a hash."""
        return sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods whose scores it reads."""
        return (
            (self.score,)
            if isinstance(self.score, str)
            else tuple(one.name for one in self.score.methods)
        )

    def value_of(self, scores: Mapping[str, float | Score | None]) -> float | None:
        """Return the calibrated score of an answer, None where it is unknown.

        Higher is more uncertain. `scores` has those of `methods`.
        """
        if isinstance(self.score, Stack):
            return self.score.score(scores)
        (value,) = as_scores([scores[self.score]], self.score)
        return None if np.isnan(value) else float(value)

    def confidence_of(self, scores: Mapping[str, float | Score | None]) -> float | None:
        """Return how probable it is from 0 to 1 that the answer is right, None where unknown."""
        return self.confidence.of(self.value_of(scores))

    def threshold(self, risk: float, group: object = None) -> Threshold:
        """Return the threshold for a risk, of a group where the questions have groups.

        On the terms of the guarantee, which are 'answered' and 5% where there is none.
        """
        found = self._thresholds(risk)
        return found.threshold(group) if isinstance(found, GroupThresholds) else found

    def _thresholds(self, risk: float) -> Threshold | GroupThresholds:
        if self.thresholds is not None and self.guarantee and self.guarantee.risk == risk:
            return self.thresholds
        if risk not in self._fitted:
            terms = self.guarantee or Guarantee(risk)
            self._fitted[risk] = _fit(self.graded, replace(terms, risk=risk))
        return self._fitted[risk]

    @cached_property
    def _fitted(self) -> dict[float, Threshold | GroupThresholds]:
        """The thresholds of further risks: settings are checked at each call with options."""
        return {}

    def refitted(
        self,
        scores: Scores,
        correct: Correct,
        groups: Iterable[object] | None = None,
    ) -> Calibration:
        """Return the calibration that other graded answers give, with the same score and terms.

        `scores` are calibrated scores. Raises ConfigurationError where the answers are not both
        right and wrong.
        """
        values = as_scores(scores)
        right = as_correct(correct, len(values))
        labels = None if groups is None else as_labels(groups, len(values))
        graded = _Answers(values, right, range(len(values)), len(values)).graded(labels)
        return replace(
            self,
            confidence=fit_confidence(values, right, self.confidence.kind),
            graded=graded,
            data_hash=graded.digest,
            thresholds=None if self.guarantee is None else _fit(graded, self.guarantee),
        )

    def save(self, path: str | Path) -> None:
        """Write it as a file, which is either the old one or the whole new one at any time.

        Raises ConfigurationError where it cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"
        replace_files({Path(path): text.encode()})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the calibration of a file; raises ConfigurationError for any other file."""
        try:
            data = json.loads(read_text(path))
            if not isinstance(data, dict):
                raise ConfigurationError(f"it holds {described(data)}")
            read = cls.from_dict(data)
        except (ValueError, RecursionError, ConfigurationError) as error:
            raise ConfigurationError(f"{path} is no calibration file: {reason(error)}") from error
        object.__setattr__(read, "path", str(path))
        return read


def calibration_schema() -> JsonObject:
    """Return the JSON Schema of calibration files."""
    schema = TypeAdapter(Calibration).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def as_calibration(value: object) -> object:
    """Return the calibration of a path or of its plain data; anything else as it is."""
    if isinstance(value, str | Path):
        return Calibration.load(value)
    return Calibration.from_dict(value) if isinstance(value, Mapping) else value


def fit_calibration(
    scores: Mapping[str, Scores],
    correct: Correct,
    *,
    origin: Origin,
    groups: Iterable[object] | None = None,
    risk: float | None = None,
    among: Among = "answered",
    delta: float = 0.05,
    kind: Kind = "platt",
    seed: int = 0,
) -> Calibration:
    """Fit the confidence and, with a `risk`, the thresholds of one method or a stack of several.

    `scores` has each method's scores of all answers, `origin` what they were made with
    (`UncertaintyModel.origin`). A stack is fitted on half of the answers, all else on the other
    half. Raises ConfigurationError where the answers are not both right and wrong; where there are
    too few for the risk, the threshold has no value but a reason.
    """
    if not isinstance(scores, Mapping) or not scores:
        raise ConfigurationError(
            f"scores is {described(scores)}; wanted is a mapping of methods to their scores"
        )
    answers, score, confidence = _scaled(scores, correct, kind, seed)
    labels = None if groups is None else as_labels(groups, answers.count)
    graded = answers.graded(labels)
    terms = None if risk is None else Guarantee(risk, among, None if among == "all" else delta)
    return Calibration(
        origin,
        score,
        confidence,
        graded,
        graded.digest,
        terms,
        None if terms is None else _fit(graded, terms),
    )


@dataclass(frozen=True)
class _Answers:
    """Those that the confidence is fitted on, of all."""

    values: Any
    correct: Any
    places: Sequence[int]
    count: int

    def graded(self, labels: Any) -> GradedAnswers:
        known = (None if np.isnan(one) else float(one) for one in self.values)
        groups = None if labels is None else tuple(labels[list(self.places)].tolist())
        return GradedAnswers(tuple(known), tuple(map(bool, self.correct)), groups)


def _scaled(
    scores: Mapping[str, Scores], correct: Correct, kind: Kind, seed: int
) -> tuple[_Answers, str | Stack, AnyScaling]:
    """Return the answers with their calibrated scores, what that score is, and its confidence."""
    columns = {name: as_scores(one, name) for name, one in scores.items()}
    (name, first), *others = columns.items()
    right = as_correct(correct, len(first))
    if others:
        fit = fit_stack(columns, right, kind=kind, seed=seed)
        held = list(fit.held_out)
        values = fit.stack.scores(columns)[held]
        return _Answers(values, right[held], held, len(right)), fit.stack, fit.confidence
    whole = _Answers(first, right, range(len(right)), len(right))
    return whole, name, fit_confidence(first, right, kind)


def _fit(graded: GradedAnswers, terms: Guarantee) -> Threshold | GroupThresholds:
    delta = 0.05 if terms.delta is None else terms.delta
    if graded.groups is None:
        return fit_threshold(
            graded.scores, graded.correct, risk=terms.risk, among=terms.among, delta=delta
        )
    return fit_group_thresholds(
        graded.scores,
        graded.correct,
        graded.groups,
        risk=terms.risk,
        among=terms.among,
        delta=delta,
    )
