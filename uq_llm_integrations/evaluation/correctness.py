"""Whether an answer is right: graders, each of which compares a text with a question's answers.

A grader is any function of an answer's text and its `Question` that returns a `Grade`, True or
False; it may be an `async def`. None with a reason says that it cannot tell, which is neither right
nor wrong.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from uq_llm_integrations.calibration.plain_records import PlainRecord
from uq_llm_integrations.errors import ConfigurationError, described, reason
from uq_llm_integrations.evaluation.questions import Question
from uq_llm_integrations.methods.lexical import rouge_l
from uq_llm_integrations.methods.numerals import as_number, ascii_digits
from uq_llm_integrations.methods.words import words
from uq_llm_integrations.strategies.answers import Answer, normalised_answer


@dataclass(frozen=True)
class Grade(PlainRecord):
    """Whether an answer is right, None where that is unknown."""

    correct: bool | None
    quality: float | None = None
    """From 0 to 1, where the grader has more than right and wrong, such as ROUGE-L."""
    reason: str | None = None
    """Why it is unknown, or what a judge has said."""


class Grader(Protocol):
    """What says whether an answer is right."""

    def __call__(self, text: str, question: Question, /) -> Grade | bool | Awaitable[Grade | bool]:
        """Return the grade of an answer's text."""


async def graded(grader: Grader, text: str, question: Question) -> Grade:
    """Return the grade of an answer; a grader that fails, or cannot tell, is a reason.

    A plain function runs in a thread of its own, so that it may take its time.
    """
    try:
        found = await asyncio.to_thread(grader, text, question)
        if inspect.isawaitable(found):
            found = await found
    except Exception as error:  # a function of the user's: it costs this grade, not the answer
        return Grade(None, reason=f"the grader failed: {reason(error)}")
    if isinstance(found, bool):
        return Grade(found)
    if not isinstance(found, Grade):
        return Grade(None, reason=f"the grader returned {described(found)}, not a Grade or a bool")
    return found


def needs_answers(question: Question) -> Grade | None:
    """Return the grade of a question without answers, None for any other."""
    return None if question.answers else Grade(None, reason="the question has no answers")


@dataclass(frozen=True)
class ExactMatch:
    """Right where the text is one of the answers, once both are normalised.

    `normalise` finds in a text what is compared; `squad_answer` drops more than the default.

    Example:
        >>> ExactMatch()(" Paris. ", Question("Capital?", ("paris", "City of Light"))).correct
        True
    """

    normalise: Answer = normalised_answer

    def __call__(self, text: str, question: Question) -> Grade:
        """Return the grade."""
        said = self.normalise(text)
        return needs_answers(question) or Grade(
            any(said == self.normalise(one) for one in question.answers)
        )


@dataclass(frozen=True)
class Contains:
    """Right where the words of one of the answers stand in the text, one after the other.

    It is for chatty models, and takes "not Paris" for right.

    Example:
        >>> Contains()("The capital is Paris, of course", Question("?", ("Paris",))).correct
        True
    """

    def __call__(self, text: str, question: Question) -> Grade:
        """Return the grade."""
        said = f" {' '.join(words(text))} "
        wanted = (" ".join(words(one)) for one in question.answers)
        return needs_answers(question) or Grade(any(f" {one} " in said for one in wanted if one))


@dataclass(frozen=True)
class RegexMatch:
    """Right where one of the answers, each a regular expression, is found in the text.

    The patterns are run as they are: take none from people whom you do not trust.

    Example:
        >>> RegexMatch()("in 1969", Question("When?", (r"19(69|70)",))).correct
        True
    """

    ignore_case: bool = True

    def __call__(self, text: str, question: Question) -> Grade:
        """Return the grade; one of an answer that is no pattern is unknown."""
        flags = re.IGNORECASE if self.ignore_case else 0
        try:
            found = any(re.search(one, text, flags) for one in question.answers)
        except re.error as error:
            return Grade(None, reason=f"an answer is no regular expression: {error}")
        return needs_answers(question) or Grade(found)


@dataclass(frozen=True)
class NumericMatch:
    """Right where the last number of the text is near to one of the answers.

    Near is at most `absolute` away, or the share `relative` of the answer.

    Example:
        >>> NumericMatch(relative=0.01)("It is about 3.14", Question("Pi?", ("3.1416",))).correct
        True
    """

    relative: float = 1e-6
    absolute: float = 0.0

    def __post_init__(self) -> None:
        for name in ("relative", "absolute"):
            _check_number(name, getattr(self, name), 0, float("inf"))

    def __call__(self, text: str, question: Question) -> Grade:
        """Return the grade; that of a text without a number is wrong."""
        wanted = [_number(one) for one in question.answers]
        if None in wanted:
            return Grade(None, reason="an answer is no number")
        said = _last_number(text)
        return needs_answers(question) or Grade(
            said is not None and any(self._is_near(said, one) for one in wanted if one is not None)
        )

    def _is_near(self, said: float, wanted: float) -> bool:
        return abs(said - wanted) <= max(self.absolute, self.relative * abs(wanted))


@dataclass(frozen=True)
class RougeMatch:
    """Right where the text's ROUGE-L with one of the answers, which is its quality, is high enough.

    ROUGE-L is the F-measure of the longest common subsequence of words (Lin 2004,
    https://aclanthology.org/W04-1013), without stemming.

    Example:
        >>> RougeMatch()("the city of Paris", Question("Capital?", ("Paris city",)))
        Grade(correct=True, quality=0.3333333333333333, reason=None)
    """

    threshold: float = 0.3

    def __post_init__(self) -> None:
        _check_number("threshold", self.threshold, 0, 1)

    def __call__(self, text: str, question: Question) -> Grade:
        """Return the grade."""
        said = words(text)
        quality = max((rouge_l(words(one), said) for one in question.answers), default=0.0)
        return needs_answers(question) or Grade(quality >= self.threshold, quality)


GraderName = Literal["exact", "contains", "regex", "numeric", "rouge"]

GRADERS: dict[str, Callable[[], Grader]] = {
    "exact": ExactMatch,
    "contains": Contains,
    "regex": RegexMatch,
    "numeric": NumericMatch,
    "rouge": RougeMatch,
}
"""Name -> grader, with its own settings."""


def as_grader(grader: object) -> Grader:
    """Return the grader of a name, or a function as it is; raises ConfigurationError for others."""
    if isinstance(grader, str) and grader in GRADERS:
        return GRADERS[grader]()
    if callable(grader):
        return grader
    allowed = ", ".join(map(repr, get_args(GraderName)))
    raise ConfigurationError(f"grader is {described(grader)}; allowed are {allowed} and a function")


def grader_name(grader: Grader) -> str:
    """Return what a grader is called in the file of an evaluation: its settings are part of it."""
    if isinstance(grader, RegexMatch | NumericMatch | RougeMatch | Contains):
        return repr(grader)
    if isinstance(grader, ExactMatch):
        return f"ExactMatch({grader.normalise.__name__})"
    name: Any = getattr(grader, "name", None) or getattr(grader, "__qualname__", None)
    return str(name or type(grader).__qualname__)


_NUMBER = re.compile(r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?", re.IGNORECASE)


def _last_number(text: str) -> float | None:
    found = (_number(one.rstrip(".,")) for one in _NUMBER.findall(ascii_digits(text)))
    return next((one for one in reversed(list(found)) if one is not None), None)


def _number(text: str) -> float | None:
    found = as_number(ascii_digits(text).strip().strip("%$€£ "))
    return None if found is None else float(found)


def _check_number(name: str, value: object, least: float, most: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # type: ignore[operator]  # it is a number
        raise ConfigurationError(f"{name} is {described(value)}; allowed is {least:g} to {most:g}")
