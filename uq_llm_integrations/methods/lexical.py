"""How alike texts are by their words: ROUGE-L, with words as Unicode knows them."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from itertools import combinations

import numpy as np

from uq_llm_integrations.errors import MissingDependencyError
from uq_llm_integrations.methods.words import words

Stem = Callable[[str], str]


def mean_rouge_l(texts: Sequence[str]) -> float:
    """Return the mean ROUGE-L of all pairs of texts, 0 to 1; blocking.

    That of equal texts is 1, also where they have no words. English words are compared by their
    stems, as in lm-polygraph. Raises MissingDependencyError without NLTK, which has the stemmer.
    """
    stem = porter_stem()
    stems = [[stem(word) for word in words(text)] for text in texts]
    pairs = combinations(zip(texts, stems, strict=True), 2)
    return float(np.mean([a == b or rouge_l(one, other) for (a, one), (b, other) in pairs]))


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """Return ROUGE-L's F-measure of two texts by their words; 0 where one has none.

    Example:
        >>> rouge_l(["oslo", "in", "norway"], ["oslo"])
        0.5
    """
    if not first or not second:
        return 0.0
    return 2 * common_length(first, second) / (len(first) + len(second))


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, by Hyyro's bits (2004)."""
    places: dict[str, int] = defaultdict(int)
    for index, word in enumerate(first):
        places[word] |= 1 << index
    every = row = (1 << len(first)) - 1
    for word in second:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & every
    return len(first) - row.bit_count()


@cache
def porter_stem() -> Stem:
    """Return ROUGE's stemmer: Porter's, of English words of more than three letters."""
    try:
        stemmer = import_module("nltk.stem.porter").PorterStemmer()
    except ImportError as error:
        raise MissingDependencyError("nltk", "polygraph") from error
    return lambda word: str(stemmer.stem(word)) if len(word) > 3 and word.isascii() else word
