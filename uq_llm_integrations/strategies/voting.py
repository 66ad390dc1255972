"""Ways to choose among candidates: by a score, by votes, by votes that a score weighs."""

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable

from uq_llm_integrations.records import Result
from uq_llm_integrations.strategies.results import Key, rank

Answer = Callable[[str], str]
"""Finds in a text what is compared: equal returns are the same answer."""


def normalised_answer(text: str) -> str:
    """Return the first line that says something, without case, accents, punctuation and articles.

    For longer texts give a function of your own that finds the answer, such as the last number.

    Example:
        >>> normalised_answer("The Café.")
        'cafe'
    """
    plain = unicodedata.normalize("NFKD", text.strip().split("\n")[0].casefold())
    letters = "".join(c for c in plain if not unicodedata.combining(c))
    words = re.sub(r"[^\w\s]", " ", letters).split()
    return " ".join(word for word in words if word not in {"a", "an", "the"})


def lowest(result: Result, method: str) -> Key:
    """Return the key by which the least uncertain candidate comes first."""

    def key(index: int) -> tuple[object, ...]:
        return rank(result.candidates[index], result.scores[index][method])

    return key


def by_votes(result: Result, method: str, answer: Answer, votes: Callable[[int], float]) -> Key:
    """Return the key by which the answer with the most votes comes first.

    Among the candidates that give it, the least uncertain by `method` stands for it.
    """
    own, totals = lowest(result, method), vote_totals(result, answer, votes)

    def key(index: int) -> tuple[object, ...]:
        candidate = result.candidates[index]
        if not candidate.is_whole:
            return 1, 0.0, "", own(index)
        given = answer(candidate.text)
        return 0, -totals[given], given, own(index)

    return key


def vote_totals(result: Result, answer: Answer, votes: Callable[[int], float]) -> dict[str, float]:
    """Return the votes of each answer; candidates that came to no end of their own have none.

    The sum does not depend on the order of the candidates (`math.fsum`).
    """
    ballots: dict[str, list[float]] = defaultdict(list)
    for index, candidate in enumerate(result.candidates):
        if candidate.is_whole:
            ballots[answer(candidate.text)].append(votes(index))
    return {given: math.fsum(cast) for given, cast in ballots.items()}


def one_vote(index: int) -> float:
    """Give everyone one vote (self-consistency, https://arxiv.org/abs/2203.11171)."""
    return 1.0


def borda_votes(result: Result, method: str, power: float) -> Callable[[int], float]:
    """Return votes by rank: (N - rank + 1) ** power, the least uncertain at rank 1.

    https://arxiv.org/abs/2502.18581, where `method` is self-certainty.
    """
    order = sorted(range(len(result.candidates)), key=lowest(result, method))
    votes = {index: float(len(order) - above) ** power for above, index in enumerate(order)}
    return votes.__getitem__


def probability_votes(result: Result, method: str) -> Callable[[int], float]:
    """Return votes of exp(-score), in (0, 1] where scores start at 0; unknown scores have none."""

    def votes(index: int) -> float:
        score = result.scores[index][method]
        return 0.0 if score.value is None else math.exp(-score.value)

    return votes
