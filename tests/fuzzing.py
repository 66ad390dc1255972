"""How many examples the property tests of whatever comes from outside run, and what comes."""

import functools
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import hypothesis
import pytest
from hypothesis import strategies as st

Test = TypeVar("Test", bound=Callable[..., object])

TIMES = int(os.environ.get("UQ_LLM_FUZZ_TIMES", "1"))
"""How many times as many examples as usual are run."""


@dataclass
class Examples:
    """The examples of a test that have run, and the seconds that the slowest took."""

    count: int = 0
    slowest: float = 0.0


RUN: defaultdict[str, Examples] = defaultdict(Examples)
"""By pytest's name of each test."""


def fuzz(usual: int = 2000) -> Callable[[Test], Test]:
    """Mark a property test that runs so many examples, and more under ``tox run -e fuzz``."""

    def marked(test: Test) -> Test:
        test.hypothesis.inner_test = _counted(test.hypothesis.inner_test)
        return pytest.mark.fuzz(hypothesis.settings(max_examples=usual * TIMES)(test))

    return marked


def _counted(inner: Test) -> Test:
    run = RUN[f"{inner.__module__.replace('.', '/')}.py::{inner.__name__}"]

    @functools.wraps(inner)
    def counted(*args: object, **kwargs: object) -> object:
        started = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            run.count += 1
            run.slowest = max(run.slowest, time.perf_counter() - started)

    return counted


NUMBERS = (
    st.integers(-3, 300)
    | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**30, 10**400, -(10**400)])
    | st.floats()
)
TEXTS = st.text(max_size=4) | st.sampled_from(["", "\ud800", "\0", "<|im_end|>", "9" * 400, "nan"])
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
"""Whatever JSON can say, and somewhat more: numbers that are none, halves of characters."""


def places(plain: object, here: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The way to each value within plain data, to the whole first."""
    found = [here]
    if isinstance(plain, dict):
        for name, one in plain.items():
            found += places(one, (*here, name))
    elif isinstance(plain, list):
        for index, one in enumerate(plain[:3]):  # the others are of the same kind
            found += places(one, (*here, index))
    return found


GONE = object()
"""Stands for a value that is left out."""


def changed(plain: object, place: tuple[object, ...], value: object) -> object:
    """Plain data with another value in one place; itself stays as it is."""
    if not place:
        return value
    if not isinstance(plain, dict | list):  # an earlier change took the place away
        return plain
    name, *rest = place
    copied = plain.copy()
    try:
        if value is GONE and not rest:
            del copied[name]
        else:
            copied[name] = changed(copied[name], tuple(rest), value)
    except (LookupError, TypeError):
        return plain
    return copied


def changes(plain: object) -> st.SearchStrategy[object]:
    """Plain data with other values in a few places, or without them."""
    one = st.tuples(st.sampled_from(places(plain)), JSON | st.just(GONE))

    def made(several: list[tuple[tuple[object, ...], object]]) -> object:
        found = plain
        for place, value in several:
            found = changed(found, place, value)
        return None if found is GONE else found

    return st.lists(one, min_size=1, max_size=3).map(made)
