"""How an answer is grounded: the prompt of every pass, the least support, what happens below it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from uq_llm_integrations.errors import ConfigurationError, InvalidRequestError, described
from uq_llm_integrations.strategies.abstain import Action, check_action
from uq_llm_integrations.strategies.conditions import is_finite

SOURCES, QUESTION = "{sources}", "{question}"

PROMPT = "Context:\n{sources}\n\nQuestion: {question}"
"""What stands in the user's turn unless another prompt is given."""

NOT_GROUNDED = "The sources do not say enough to answer that."

LEAST_SUPPORT = 3.0
"""Nats: the sources make the answer 20 times as probable, "strong" evidence by Kass and Raftery."""


@dataclass(frozen=True)
class Source:
    """A text that an answer may rest on, and what its owner calls it."""

    text: str
    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not isinstance(self.name, str | None):
            raise InvalidRequestError(
                f"a source is {described((self.text, self.name))}; allowed are a text and a name"
            )


@dataclass(frozen=True)
class Grounding:
    r"""How the support of an answer by sources is measured, and what is done where it is low.

    Every pass scores the answer behind the same prompt, in which only the sources differ: `prompt`
    with the sources of the pass in the place of `{sources}`, in their order and with `separator`
    between them, and the question in that of `{question}`. It is a user's turn in the model's chat
    template, or with `chat_template=False` a prompt by itself. Names of control tokens in all of it
    are text, whoever wrote them.

    An answer with a support below `least_support` nats is not grounded, and one whose support is
    unknown counts as such. Of graded answers, `fit_threshold` gives one with a promise: minus its
    threshold of `GroundedAnswer.score`. 'annotate' marks it as uncertain; 'abstain' puts
    `abstention_text` in its place; 'raise' raises HighUncertaintyError.

    Example:
        >>> Grounding("Sources: {sources}\n{question}").written(["One.", "Two."], "What?")
        'Sources: One.\n\nTwo.\nWhat?'
    """

    prompt: str = PROMPT
    least_support: float = LEAST_SUPPORT
    on_not_grounded: Action = "annotate"
    abstention_text: str = NOT_GROUNDED
    separator: str = "\n\n"
    chat_template: bool = True

    def __post_init__(self) -> None:
        for name in ("prompt", "abstention_text", "separator"):
            if not isinstance(value := getattr(self, name), str):
                raise ConfigurationError(f"{name} is {described(value)}; it must be a text")
        if self.prompt.count(SOURCES) != 1 or self.prompt.count(QUESTION) > 1:
            raise ConfigurationError(
                f"prompt is {described(self.prompt)}; it must have {SOURCES} once, and {QUESTION} "
                "at most once"
            )
        least = self.least_support
        is_number = isinstance(least, int | float) and not isinstance(least, bool)
        if not is_number or not is_finite(least):
            raise ConfigurationError(f"least_support is {described(least)}; allowed are nats")
        check_action(self.on_not_grounded, "on_not_grounded")
        if not isinstance(self.chat_template, bool):
            raise ConfigurationError(
                f"chat_template is {described(self.chat_template)}; allowed are True and False"
            )

    @property
    def condition(self) -> str:
        """What an answer that is not grounded meets."""
        return f"support < {self.least_support:g}"

    def written(self, sources: Sequence[str], question: str) -> str:
        """Return the prompt with these sources; empty ones take no place in it."""
        parts = {SOURCES: self.separator.join(filter(None, sources)), QUESTION: question}
        pieces = re.split(r"(\{sources\}|\{question\})", self.prompt)
        return "".join(parts.get(piece, piece) for piece in pieces)


def as_sources(given: object) -> tuple[Source, ...]:
    """Return sources that are given as such or as texts; raise InvalidRequestError for others."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidRequestError(
            f"the sources are {described(given)}; give a list of texts or of Source"
        )
    return tuple(one if isinstance(one, Source) else Source(one) for one in given)


def as_question(given: object) -> str:
    """Return a question; raise InvalidRequestError for what is no text."""
    if not isinstance(given, str):
        raise InvalidRequestError(f"the question is {described(given)}, not a text")
    return given


def as_grounding(given: object, **changes: object) -> Grounding:
    """Return a Grounding, the default one for None and True, with what is not None of the changes.

    Raises ConfigurationError for all else.
    """
    how = Grounding() if given is None or given is True else given
    if not isinstance(how, Grounding):
        raise ConfigurationError(f"grounding is {described(given)}; it must be a Grounding")
    wanted: dict[str, Any] = {name: one for name, one in changes.items() if one is not None}
    return replace(how, **wanted)
