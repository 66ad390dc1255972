"""What conditions compare: scores, windows over tokens, and how far the samples agree."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from uq_llm_integrations.errors import ConfigurationError, described, suggestion
from uq_llm_integrations.methods.registry import find_method
from uq_llm_integrations.methods.scoring import token_values
from uq_llm_integrations.plain_data import read_text
from uq_llm_integrations.records import Floats, Result
from uq_llm_integrations.strategies.answers import Answer, check_answer, normalised_answer
from uq_llm_integrations.strategies.conditions import Interval, Quantity, Scored, score_of


@dataclass(frozen=True, repr=False)
class score(Quantity):  # noqa: N801  # reads as a word in conditions
    """A sequence-level method's score of the answer; higher is more uncertain.

    Example:
        >>> score("entropy") > 1.5
        entropy > 1.5
    """

    method: str

    def __post_init__(self) -> None:
        if find_method(self.method).level != "sequence":
            level = find_method(self.method).level
            raise ConfigurationError(
                f"{self.method} has a value for each {level}, not one; of tokens use token_mean, "
                "token_max or worst_window"
            )

    @property
    def methods(self) -> tuple[str, ...]:
        """The method itself."""
        return (self.method,)

    def __call__(self, scored: Scored) -> Interval | None:
        """Return the score, or its interval."""
        known = score_of(scored, self.method)
        if known.value is not None:
            return known.value, known.value
        if known.lower is not None and known.upper is not None:
            return known.lower, known.upper
        return None

    def __repr__(self) -> str:
        return self.method


@dataclass(frozen=True, repr=False)
class token_window(Quantity):  # noqa: N801  # reads as a word in conditions
    """A method's values over tokens, reduced to one number; higher is more uncertain.

    `mean` and `max` are taken of the last `size` tokens (of all without a size); `worst` is the
    highest mean of any `size` tokens in a row, of all tokens where there are fewer (the lowest
    group confidence of DeepConf, https://arxiv.org/abs/2508.15260).
    """

    method: str
    reduce: Literal["mean", "max", "worst"]
    size: int | None = None

    def __post_init__(self) -> None:
        if find_method(self.method).values is None:
            raise ConfigurationError(
                f"{self.method} has no value that a trace gives for each token; a window reads "
                "methods such as entropy and mean_nll"
            )
        if self.size is not None and (type(self.size) is not int or self.size < 1):
            raise ConfigurationError(
                f"the window has {described(self.size)} tokens; it needs at least 1"
            )

    @property
    def token_methods(self) -> tuple[str, ...]:
        """The method itself."""
        return (self.method,)

    def __call__(self, scored: Scored) -> Interval | None:
        """Reduce both ends."""
        trace = scored.trace
        values = token_values(trace, find_method(self.method)) if len(trace) else None
        if values is None or not all(np.isfinite(end).all() for end in values):
            return None
        low, high = map(self._reduced, values)
        if (transform := find_method(self.method).transform) is None:
            return low, high
        try:
            return transform(low), transform(high)
        except Exception:  # a transform of another package's method, such as exp of too much
            return None

    def _reduced(self, values: Floats) -> float:
        size = min(self.size or len(values), len(values))
        if self.reduce == "worst":
            sums = np.convolve(values, np.ones(size), "valid")
            return float(sums.max()) / size
        last = values[-size:]
        return float(last.mean() if self.reduce == "mean" else last.max())

    def __repr__(self) -> str:
        name = "worst_window" if self.reduce == "worst" else f"token_{self.reduce}"
        size = f", {self.size}" if self.size else ""
        return f"{name}({self.method}{size})"


def token_mean(method: str, last: int | None = None) -> token_window:
    """Return the mean over the last tokens, or over all.

    Example:
        >>> token_mean("entropy", last=8) > 2
        token_mean(entropy, 8) > 2
    """
    return token_window(method, "mean", last)


def token_max(method: str, last: int | None = None) -> token_window:
    """Return the highest value among the last tokens, or among all.

    Example:
        >>> token_max("entropy") > 4
        token_max(entropy) > 4
    """
    return token_window(method, "max", last)


def worst_window(method: str, size: int) -> token_window:
    """Return the highest mean of `size` tokens in a row.

    Example:
        >>> worst_window("entropy", 16) > 3
        worst_window(entropy, 16) > 3
    """
    return token_window(method, "worst", size)


@dataclass(frozen=True, repr=False)
class confidence(Quantity):  # noqa: N801  # reads as a word in conditions
    """How probable it is, by the model's calibration, that the answer is right, 0 to 1.

    Low is uncertain. It needs a `calibration`.

    Example:
        >>> confidence() < 0.8
        confidence < 0.8
    """

    @property
    def methods(self) -> tuple[str, ...]:
        """The method whose complement it is."""
        return ("error_probability",)

    def __call__(self, scored: Scored) -> Interval | None:
        """Return the confidence, None where it is unknown."""
        wrong = score_of(scored, "error_probability").value
        return None if wrong is None else (1 - wrong, 1 - wrong)

    def __repr__(self) -> str:
        return "confidence"


@dataclass(frozen=True, repr=False)
class support(Quantity):  # noqa: N801  # reads as a word in conditions
    """By how many nats the best source raises an answer's log-probability (see `Grounding`).

    Low is not grounded. It is known of answers with sources: those of `UncertaintyQueryEngine`.

    Example:
        >>> support() < 2
        support < 2
    """

    needs_sources = True

    def __call__(self, scored: Scored) -> Interval | None:
        """Return the support, None where it is unknown."""
        value = getattr(scored, "support", None)  # a view of metadata has it, a result has not
        return None if value is None else (value, value)

    def __repr__(self) -> str:
        return "support"


@dataclass(frozen=True, repr=False)
class agreement(Quantity):  # noqa: N801  # reads as a word in conditions
    """The share of the whole candidates that give the same answer as the chosen one, 0 to 1.

    Low is uncertain. `answer` turns a text into what is compared. Where there are no two candidates
    to compare, it is not known.

    Example:
        >>> agreement() < 0.5
        agreement < 0.5
    """

    answer: Answer = normalised_answer
    needs_samples = True

    def __post_init__(self) -> None:
        check_answer(self.answer)

    def __call__(self, scored: Scored) -> Interval | None:
        """Count the equal answers."""
        if not isinstance(scored, Result) or not scored.candidate.is_whole:
            return None
        answers = [self.answer(one.text) for one in scored.candidates if one.is_whole]
        if len(answers) < 2:
            return None
        share = answers.count(self.answer(scored.candidate.text)) / len(answers)
        return share, share

    def __repr__(self) -> str:
        return "agreement"


def load_threshold(path: str | Path, name: str) -> float:
    """Return a threshold from a calibration file: JSON, `{"thresholds": {name: number}}`.

    Raises ConfigurationError where the file or the name is not there.

    Example:
        uncertain = score("entropy") > load_threshold("calibration.json", "entropy")
    """
    if not isinstance(path, str | Path) or not isinstance(name, str):
        wrong = name if isinstance(path, str | Path) else path
        raise ConfigurationError(
            f"a threshold is read by a path and a name, and {described(wrong)} is none"
        )
    try:
        thresholds = json.loads(read_text(path))["thresholds"]
        value = thresholds[name]
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is no calibration file: {error}") from error
    except KeyError as error:
        if error.args == ("thresholds",):
            raise ConfigurationError(f"{path} has no 'thresholds'") from error
        near = suggestion(name, thresholds)
        raise ConfigurationError(f"{path} has no threshold {described(name)}{near}") from error
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < math.inf:
        raise ConfigurationError(
            f"the threshold {described(name)} in {path} is {described(value)}, not a number"
        )
    return float(value)
